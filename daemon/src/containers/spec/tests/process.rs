//! What is run, where, and how it is stopped.

use super::*;

#[test]
fn terminal() {
    insta::assert_snapshot!("terminal", effect(|f| f.config.tty = true));
}

#[test]
fn annotations_do_not_order_crun_about() {
    let got = effect(|f| {
        for key in ["a/b", "run.oci.handler", "org.criu.config", ""] {
            f.config.annotations.insert(key.into(), "x".into());
        }
    });
    assert_eq!(got, r#"+ .annotations.a/b "x""#);
}

#[test]
fn what_is_run() {
    let args = |command: &[&str], args: &[&str], image: &str| {
        let list = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect();
        let mut fixture = plain();
        fixture.config.command = list(command);
        fixture.config.args = list(args);
        fixture.image = Some(image_config(image));
        let spec = fixture.build().map_err(|e| e.to_string())?;
        Ok::<_, String>(
            spec.process()
                .as_ref()
                .unwrap()
                .args()
                .clone()
                .unwrap()
                .join(" "),
        )
    };
    let image = r#"{"Entrypoint": ["e"], "Cmd": ["c"]}"#;
    assert_eq!(args(&[], &[], image).unwrap(), "e c");
    assert_eq!(args(&[], &["x"], image).unwrap(), "e x");
    assert_eq!(args(&["x"], &[], image).unwrap(), "x");
    assert_eq!(args(&["x"], &["y"], image).unwrap(), "x y");
    assert_eq!(args(&[], &[], r#"{"Cmd": ["c"]}"#).unwrap(), "c");
    assert_eq!(
        args(&[], &[], r#"{"Entrypoint": [""], "Cmd": ["c"]}"#).unwrap(),
        "c"
    );
    assert!(
        args(&[], &[], "{}")
            .unwrap_err()
            .contains("there is nothing to run")
    );
    assert!(
        args(&[""], &["x"], image)
            .unwrap_err()
            .contains("name is empty")
    );
    let mut without_image = plain();
    without_image.image = None;
    assert!(without_image.refused().contains("there is nothing to run"));
}

#[test]
fn where_it_runs() {
    let cwd = |config: &str, image: &str| {
        let mut fixture = plain();
        fixture.config.working_dir = config.into();
        fixture
            .image
            .as_mut()
            .unwrap()
            .set_working_dir(Some(image.into()));
        let spec = fixture.build().unwrap();
        spec.process().as_ref().unwrap().cwd().display().to_string()
    };
    assert_eq!(cwd("/a", "/b"), "/a");
    assert_eq!(cwd("", "/b"), "/b");
    assert_eq!(cwd("", "b"), "/b");
    assert_eq!(cwd("", ""), "/");
}

#[test]
fn environment() {
    let mut fixture = plain();
    fixture.image = Some(image_config(
        r#"{"Cmd": ["x"], "Env": ["HOSTNAME=image", "EMPTY=", "A=1=2", "HOME"]}"#,
    ));
    fixture.config.envs = [("A", "3"), ("B", "4"), ("B", "5")]
        .map(|(name, value)| EnvVar {
            name: name.into(),
            value: value.into(),
        })
        .to_vec();
    let spec = fixture.build().unwrap();
    let env = spec.process().as_ref().unwrap().env().clone().unwrap();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(env, [path, "HOSTNAME=image", "EMPTY=", "A=3", "B=5"]);
}

#[test]
fn how_it_is_stopped() {
    let signal = |config: Option<&str>, image: &str| {
        let mut fixture = plain();
        fixture.config.stop_signal = config.and_then(Signal::parse);
        fixture
            .image
            .as_mut()
            .unwrap()
            .set_stop_signal(Some(image.into()));
        let signal = stop_signal(&fixture.config, fixture.image.as_ref());
        signal.map(|s| s.to_string()).map_err(|e| e.to_string())
    };
    assert_eq!(signal(Some("SIGUSR1"), "SIGQUIT").as_deref(), Ok("SIGUSR1"));
    assert_eq!(signal(None, "SIGQUIT").as_deref(), Ok("SIGQUIT"));
    assert_eq!(signal(None, "RTMIN+3").as_deref(), Ok("SIGRTMIN+3"));
    assert_eq!(signal(None, "").as_deref(), Ok("SIGTERM"));
    assert!(signal(None, "SIGNOPE").unwrap_err().contains("SIGNOPE"));
}
