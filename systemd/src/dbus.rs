//! The part of systemd's manager interface that transient scopes need,
//! org.freedesktop.systemd1(5).

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use tokio::sync::Mutex;
use zbus::{OwnedObjectPath, Variant};

use crate::scope::{ScopeError, ScopeManager, ScopeSpec};

/// How long systemd may take for one job. Making a scope is a matter of milliseconds; ending one takes up to the
/// stop timeout below.
const DEADLINE: Duration = Duration::from_secs(30);

/// Time between SIGTERM and SIGKILL when systemd ends a scope (at shutdown, or by an admin's `systemctl stop`).
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// One row of ListUnitsByPatterns: name, description, load state, active state, sub state, followed unit, path, job
/// id, job type, job path.
type Unit = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;

    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, Variant<'_>)],
        aux: &[(&str, &[(&str, Variant<'_>)])],
    ) -> zbus::Result<OwnedObjectPath>;

    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;

    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;

    fn list_units_by_patterns(&self, states: &[&str], patterns: &[&str])
    -> zbus::Result<Vec<Unit>>;

    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

/// Scopes made by the systemd of this machine, over the system bus.
///
/// The connection is made on first use, kept, and made again after it broke (the bus was restarted).
#[derive(Debug, Default)]
pub struct SystemdScopes {
    manager: Mutex<Option<ManagerProxy<'static>>>,
}

impl SystemdScopes {
    async fn manager(&self) -> Result<ManagerProxy<'static>, ScopeError> {
        let mut cached = self.manager.lock().await;
        if let Some(manager) = &*cached {
            return Ok(manager.clone());
        }
        let connect = async {
            let connection = zbus::Connection::system().await?;
            let manager = ManagerProxy::new(&connection).await?;
            // Without a subscriber systemd sends no JobRemoved.
            manager.subscribe().await?;
            Ok::<_, zbus::Error>(manager)
        };
        let manager = tokio::time::timeout(DEADLINE, connect)
            .await
            .map_err(|_| ScopeError::Connect("no answer in time".into()))?
            .map_err(|e| ScopeError::Connect(e.into()))?;
        *cached = Some(manager.clone());
        Ok(manager)
    }

    /// Runs `call`, a second time if the connection was broken: the bus may have been restarted since the last call. All
    /// calls may be made twice; what was started twice by that is refused.
    async fn ask<T, F>(
        &self,
        doing: &'static str,
        name: &str,
        call: impl Fn(ManagerProxy<'static>) -> F,
    ) -> Result<T, ScopeError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let manager = self.manager().await?;
        match self.ask_once(doing, name, call(manager)).await {
            Err(ScopeError::Connect(_)) => {
                let manager = self.manager().await?;
                self.ask_once(doing, name, call(manager)).await
            }
            answer => answer,
        }
    }

    /// Runs `call` with a deadline and explains its failure; a broken connection is forgotten.
    async fn ask_once<T>(
        &self,
        doing: &'static str,
        name: &str,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, ScopeError> {
        let failure = match tokio::time::timeout(DEADLINE, call).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(failure)) => failure,
            Err(_) => {
                return Err(ScopeError::Deadline {
                    doing,
                    name: name.to_owned(),
                    seconds: DEADLINE.as_secs(),
                });
            }
        };
        match failure {
            Failure::Job(result) => Err(ScopeError::Job {
                doing,
                name: name.to_owned(),
                result,
            }),
            Failure::Bus(source @ zbus::Error::InputOutput(_)) | Failure::Lost(source) => {
                *self.manager.lock().await = None;
                Err(ScopeError::Connect(source.into()))
            }
            Failure::Bus(source) => Err(ScopeError::Call {
                doing,
                name: name.to_owned(),
                source: source.into(),
            }),
        }
    }
}

/// Why a conversation with systemd did not come to a good end.
enum Failure {
    /// A call was refused or the connection broke.
    Bus(zbus::Error),
    /// The stream of signals ended: the connection is gone.
    Lost(zbus::Error),
    /// The job ended with this result instead of `done`.
    Job(String),
}

impl From<zbus::Error> for Failure {
    fn from(error: zbus::Error) -> Self {
        Self::Bus(error)
    }
}

/// Starts a job and waits until systemd says that it ended.
///
/// The signal is subscribed to before the call: a fast job may be over before the call returns.
async fn run_job(
    manager: &ManagerProxy<'_>,
    name: &str,
    start: impl Future<Output = zbus::Result<OwnedObjectPath>>,
) -> Result<(), Failure> {
    // Argument 2 of JobRemoved is the unit: other units' jobs wake nobody here.
    let mut removed = manager.receive_job_removed_with_args(&[(2, name)]).await?;
    let job = start.await?;
    while let Some(signal) = removed.next().await {
        let args = signal.args()?;
        if args.job != job {
            continue;
        }
        return match args.result {
            "done" => Ok(()),
            other => Err(Failure::Job(other.to_owned())),
        };
    }
    Err(Failure::Lost(zbus::Error::Failure(
        "the bus closed the connection".to_owned(),
    )))
}

/// Properties of a transient scope that holds a pod, org.freedesktop.systemd1(5) and systemd.scope(5).
fn properties(spec: &ScopeSpec) -> Vec<(&'static str, Variant<'_>)> {
    vec![
        ("Description", Variant::from(spec.description.as_str())),
        ("Slice", Variant::from(spec.slice.as_str())),
        // With it systemd enables all controllers for the scope and leaves everything below it alone.
        ("Delegate", Variant::from(true)),
        // Pods end at shutdown when kubelet ends them, not when systemd isolates shutdown.target.
        ("DefaultDependencies", Variant::from(false)),
        // By default a scope may have 15 % of the machine's tasks (systemd-system.conf(5), DefaultTasksMax): a bound that
        // nobody asked for. Kubelet bounds pods in the slice.
        ("TasksMax", Variant::from(u64::MAX)),
        // A failed scope would keep its name.
        ("CollectMode", Variant::from("inactive-or-failed")),
        (
            "TimeoutStopUSec",
            Variant::from(u64::try_from(STOP_TIMEOUT.as_micros()).unwrap_or(u64::MAX)),
        ),
        ("PIDs", Variant::from(spec.pids.clone())),
    ]
}

/// Whether a call failed with this D-Bus error.
fn is(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(known, _, _) if known.as_str() == name)
}

#[async_trait]
impl ScopeManager for SystemdScopes {
    async fn start_scope(&self, spec: &ScopeSpec) -> Result<(), ScopeError> {
        let name = spec.name.as_str();
        let start = async |manager: &ManagerProxy<'static>| {
            let properties = properties(spec);
            let call = manager.start_transient_unit(name, "fail", &properties, &[]);
            run_job(manager, name, call).await
        };
        let start_anew = |manager| async move {
            match start(&manager).await {
                Err(Failure::Bus(e)) if is(&e, "org.freedesktop.systemd1.UnitExists") => {
                    // It ended badly in an earlier life. A live one stays, and the second try fails as well.
                    manager.reset_failed_unit(name).await?;
                    start(&manager).await
                }
                other => other,
            }
        };
        self.ask("start", name, start_anew).await
    }

    async fn stop_scope(&self, name: &str) -> Result<(), ScopeError> {
        let stop = |manager: ManagerProxy<'static>| async move {
            let call = manager.stop_unit(name, "replace");
            match run_job(&manager, name, call).await {
                Err(Failure::Bus(e)) if is(&e, "org.freedesktop.systemd1.NoSuchUnit") => Ok(()),
                other => other,
            }
        };
        self.ask("stop", name, stop).await
    }

    async fn scope_exists(&self, name: &str) -> Result<bool, ScopeError> {
        Ok(!self.units(name).await?.is_empty())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, ScopeError> {
        self.units(&format!("{prefix}*.scope")).await
    }
}

impl SystemdScopes {
    /// Names of the units that match a glob(7) pattern and are not dead.
    async fn units(&self, pattern: &str) -> Result<Vec<String>, ScopeError> {
        let list = |manager: ManagerProxy<'static>| async move {
            Ok(manager.list_units_by_patterns(&[], &[pattern]).await?)
        };
        let units = self.ask("list", pattern, list).await?;
        Ok(units
            .into_iter()
            .filter(|unit| !matches!(unit.3.as_str(), "inactive" | "failed"))
            .map(|unit| unit.0)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::Type;

    #[test]
    fn properties_have_the_types_of_the_interface() {
        let spec = ScopeSpec {
            name: "nexcage-1.scope".into(),
            slice: "kubepods.slice".into(),
            description: "pod default/web".into(),
            pids: vec![7, 8],
        };
        let types: Vec<(&str, String)> = properties(&spec)
            .into_iter()
            .map(|(name, value)| (name, value.value_signature().to_string()))
            .collect();
        let expected = [
            ("Description", "s"),
            ("Slice", "s"),
            ("Delegate", "b"),
            ("DefaultDependencies", "b"),
            ("TasksMax", "t"),
            ("CollectMode", "s"),
            ("TimeoutStopUSec", "t"),
            ("PIDs", "au"),
        ];
        assert_eq!(types.len(), expected.len());
        for ((name, signature), expected) in types.iter().zip(expected) {
            assert_eq!((*name, signature.as_str()), expected);
        }
    }

    #[test]
    fn calls_have_the_signatures_of_the_interface() {
        type StartTransientUnit<'a> = (
            &'a str,
            &'a str,
            &'a [(&'a str, Variant<'a>)],
            &'a [(&'a str, &'a [(&'a str, Variant<'a>)])],
        );
        assert_eq!(
            StartTransientUnit::SIGNATURE.to_string(),
            "(ssa(sv)a(sa(sv)))"
        );
        assert_eq!(Vec::<Unit>::SIGNATURE.to_string(), "a(ssssssouso)");
    }

    #[tokio::test]
    async fn without_a_bus_the_error_can_be_retried() {
        if std::path::Path::new("/run/dbus/system_bus_socket").exists() {
            eprintln!("skipped: this machine has a system bus");
            return;
        }
        let error = SystemdScopes::default()
            .scope_exists("nexcage-1.scope")
            .await
            .unwrap_err();
        assert!(matches!(error, ScopeError::Connect(_)), "{error}");
        assert!(error.is_retryable());
    }
}
