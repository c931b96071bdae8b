//! crictl and critest, and ginkgo for critest, built from the Go module `tests/critools`, which pins their version.
//!
//! `go install sigs.k8s.io/cri-tools/...@v1.36.0` would need the list of versions from the module
//! proxy; a module that requires the version needs only that version.

use camino::Utf8PathBuf;

use crate::cache::{self, Inputs};
use crate::go::Go;
use crate::run::{output, run, workspace};

/// The version that `tests/critools/go.mod` requires; `critest` reports it.
const VERSION: &str = "1.36.0";

/// What the system tests drive the daemon with.
pub(crate) struct CriTools {
    /// The client for people and scripts.
    pub(crate) crictl: Utf8PathBuf,
    /// The conformance tests of CRI.
    pub(crate) critest: Utf8PathBuf,
    /// What critest runs itself with when it is asked for several specs at once.
    pub(crate) ginkgo: Utf8PathBuf,
}

/// Builds both if they are not in the cache. Takes about two minutes on two cores.
pub(crate) fn build(go: &Go) -> anyhow::Result<CriTools> {
    let module = workspace().join("tests/critools");
    let version = output(
        go.command()
            .args(["env", "GOVERSION", "GOARCH"])
            .current_dir(&module),
    )?;
    let inputs = Inputs::new("critools 2")
        .text(&version)
        .text(VERSION)
        .file(&module.join("go.mod"))?
        .file(&module.join("go.sum"))?;

    let dir = cache::directory("critools", inputs, |dir| {
        println!("building crictl and critest {VERSION}, a few minutes the first time");
        let stamp = format!("-X sigs.k8s.io/cri-tools/pkg/version.Version={VERSION}");
        run(go
            .command()
            .args([
                "build",
                "-mod=readonly",
                "-ldflags",
                &stamp,
                "-o",
                dir.join("crictl").as_str(),
            ])
            .arg("sigs.k8s.io/cri-tools/cmd/crictl")
            .env("CGO_ENABLED", "0")
            .current_dir(&module))?;
        run(go
            .command()
            .args(["build", "-mod=readonly", "-o", dir.join("ginkgo").as_str()])
            .arg("github.com/onsi/ginkgo/v2/ginkgo")
            .env("CGO_ENABLED", "0")
            .current_dir(&module))?;
        run(go
            .command()
            .args(["test", "-mod=readonly", "-ldflags", &stamp, "-c"])
            .args(["-o", dir.join("critest").as_str()])
            .arg("sigs.k8s.io/cri-tools/cmd/critest")
            .env("CGO_ENABLED", "0")
            .current_dir(&module))
    })?;
    Ok(CriTools {
        crictl: dir.join("crictl"),
        critest: dir.join("critest"),
        ginkgo: dir.join("ginkgo"),
    })
}
