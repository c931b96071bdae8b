//! What is accepted, and what the help says.

use clap::CommandFactory as _;

use super::*;

fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once(&"nexcage").chain(args))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_a_sentence_and_an_example() {
    fn check(command: &clap::Command) {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "{name}: no sentence");
        let help = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(help.contains("Example"), "{name}: no example");
        command.get_subcommands().for_each(check);
    }
    Cli::command().get_subcommands().for_each(check);
}

#[test]
fn a_command_in_a_container_keeps_its_own_options() {
    for args in [
        ["exec", "web", "--", "ls", "-l"].as_slice(),
        ["exec", "web", "ls", "-l"].as_slice(),
    ] {
        let Command::Exec(exec) = parse(args).unwrap().command else {
            panic!("not exec")
        };
        assert_eq!((exec.container.as_str(), exec.tty), ("web", false));
        assert_eq!(exec.command, ["ls", "-l"]);
    }
    let args = [
        "run", "--rm", "-e", "A=1", "debian", "sh", "-c", "exit 3", "--rm",
    ];
    let Command::Run(run) = parse(&args).unwrap().command else {
        panic!("not run")
    };
    assert!(run.rm && run.new.env.len() == 1);
    assert_eq!(run.command, ["sh", "-c", "exit 3", "--rm"]);
}

#[test]
fn what_contradicts_itself_is_refused() {
    for args in [
        ["run", "--rm", "-d", "debian"].as_slice(),
        ["pull", "--creds", "a:b", "--creds-stdin", "debian"].as_slice(),
        ["run", "-p", "80", "debian"].as_slice(),
        ["run", "-v", "relative:/x", "debian"].as_slice(),
        ["exec", "web"].as_slice(),
        ["exec", "--timeout", "0", "web", "ls"].as_slice(),
        ["delete"].as_slice(),
        [].as_slice(),
    ] {
        assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args:?}");
    }
}

#[test]
fn the_socket_is_taken_anywhere() {
    for args in [["--socket", "/s", "list"], ["list", "--socket", "/s"]] {
        assert_eq!(parse(&args).unwrap().socket.as_deref(), Some("/s"));
    }
}

#[test]
fn the_help_of_commands_for_pods() {
    let mut command = Cli::command();
    command.build();
    for name in [
        "list", "create", "start", "stop", "delete", "logs", "doctor",
    ] {
        let sub = command.find_subcommand_mut(name).unwrap();
        insta::assert_snapshot!(format!("help-{name}"), sub.render_long_help().to_string());
    }
}

#[test]
fn a_target_is_given_in_one_of_two_ways() {
    for args in [["stop", "web"].as_slice(), &["stop", "--name", "web"]] {
        let Command::Stop(stop) = parse(args).unwrap().command else {
            panic!("not stop")
        };
        assert_eq!(stop.target.name(), "web");
    }
    for args in [
        ["stop"].as_slice(),
        &["stop", "web", "--name", "db"],
        &["logs"],
        &["start"],
    ] {
        assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args:?}");
    }
    let Command::Delete(delete) = parse(&["delete", "--name", "a", "b"]).unwrap().command else {
        panic!("not delete")
    };
    assert_eq!(
        (delete.targets, delete.name),
        (vec!["b".to_owned()], vec!["a".to_owned()])
    );
}

#[test]
fn what_is_created_has_a_name() {
    let args = [
        "create",
        "--name",
        "web",
        "--image",
        "nginx",
        "--",
        "nginx",
        "-g",
        "daemon off;",
    ];
    let Command::Create(create) = parse(&args).unwrap().command else {
        panic!("not create")
    };
    assert_eq!(create.command.len(), 3);
    for args in [
        ["create", "--image", "nginx"].as_slice(),
        &["create", "--name", "web", "--start"],
        &["create", "--name", "web", "--", "ls"],
        &["create", "--name", "web", "--runtime", "vm"],
        &[
            "create",
            "--name",
            "web",
            "--runtime",
            "lxc",
            "--runtime-handler",
            "host",
        ],
    ] {
        assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args:?}");
    }
}
