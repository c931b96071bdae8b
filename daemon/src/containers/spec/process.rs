//! The first process: what it runs, where, as whom, with what environment and rights.

use oci_spec::image;
use oci_spec::runtime::{Process, ProcessBuilder, UserBuilder};

use super::{SpecError, SpecInput, apparmor, capabilities};
use crate::containers::config::ContainerSpec;
use crate::containers::signal::Signal;
use crate::cri::InvalidField;

/// `PATH` of an image that sets none; as with Docker and containerd.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn process(input: &SpecInput<'_>) -> Result<Process, SpecError> {
    let (config, user) = (input.config, input.user);
    let security = &config.security;
    let ids = UserBuilder::default()
        .uid(user.uid)
        .gid(user.gid)
        .additional_gids(user.additional_gids.clone())
        .build()?;
    let no_new_privs =
        security.no_new_privs || (input.node.no_new_privileges && !security.privileged);
    let mut process = ProcessBuilder::default()
        .terminal(config.tty)
        .user(ids)
        .args(args(config, input.image)?)
        .env(env(input))
        .cwd(cwd(config, input.image))
        .capabilities(capabilities::sets(input)?.to_oci()?)
        .no_new_privileges(no_new_privs)
        // Always, because the monitor that starts the container protects itself from the OOM killer.
        .oom_score_adj(config.resources.oom_score_adj)
        .rlimits(input.node.rlimits.clone())
        .build()?;
    process.set_apparmor_profile(apparmor::profile(input)?);
    Ok(process)
}

/// Command and arguments of the request replace entrypoint and cmd of the image. A new command also
/// does without the image's cmd, which was meant for the old one.
fn args(config: &ContainerSpec, image: Option<&image::Config>) -> Result<Vec<String>, SpecError> {
    let list = |list: Option<&Option<Vec<String>>>| list.cloned().flatten().unwrap_or_default();
    let mut command = config.command.clone();
    let mut args = config.args.clone();
    if command.is_empty() {
        command = list(image.map(image::Config::entrypoint));
        // How a Dockerfile takes back the entrypoint of the image it builds on.
        if command == [""] {
            command.clear();
        }
        if args.is_empty() {
            args = list(image.map(image::Config::cmd));
        }
    }
    command.extend(args);
    match command.first().map(String::as_str) {
        None => {
            let problem =
                "there is nothing to run: neither the request nor the image has a command";
            Err(InvalidField::invalid("config.command", problem).into())
        }
        Some("") => {
            Err(InvalidField::invalid("config.command", "the program's name is empty").into())
        }
        Some(_) => Ok(command),
    }
}

fn cwd(config: &ContainerSpec, image: Option<&image::Config>) -> String {
    let of_image = image
        .and_then(|image| image.working_dir().clone())
        .unwrap_or_default();
    let wanted = if config.working_dir.is_empty() {
        of_image
    } else {
        config.working_dir.clone()
    };
    // An image's may be relative or missing.
    if wanted.starts_with('/') {
        wanted
    } else {
        format!("/{wanted}")
    }
}

/// Defaults, then the image, then the request. A later variable takes the place of an earlier one.
fn env(input: &SpecInput<'_>) -> Vec<String> {
    let mut env = Environment::default();
    env.set("PATH", PATH);
    env.set("HOME", &input.user.home);
    if input.config.tty {
        env.set("TERM", "xterm");
    }
    env.set("HOSTNAME", &input.sandbox.hostname);
    let of_image = input.image.and_then(|image| image.env().as_ref());
    for entry in of_image.into_iter().flatten() {
        match entry.split_once('=') {
            Some((name, value)) => env.set(name, value),
            None => env.remove(entry),
        }
    }
    for variable in &input.config.envs {
        env.set(&variable.name, &variable.value);
    }
    env.0
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

#[derive(Default)]
struct Environment(Vec<(String, String)>);

impl Environment {
    fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }
}

/// What asks the container to end: the request's signal, else the image's, else SIGTERM.
///
/// # Errors
///
/// The image's is not a signal.
pub(crate) fn stop_signal(
    config: &ContainerSpec,
    image: Option<&image::Config>,
) -> Result<Signal, InvalidField> {
    if let Some(signal) = config.stop_signal {
        return Ok(signal);
    }
    match image
        .and_then(|image| image.stop_signal().as_deref())
        .unwrap_or_default()
    {
        "" => Ok(Signal::TERM),
        text => Signal::parse(text).ok_or_else(|| {
            let problem = format!("the image's stop signal {text:?} is not a signal");
            InvalidField::invalid("config.image", problem)
        }),
    }
}
