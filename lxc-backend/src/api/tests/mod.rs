//! The client against a server that answers as Proxmox does, and as nobody should.

mod requests;
mod server;
mod tasks;

use std::fs::Permissions as Mode;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use camino::Utf8PathBuf;
use tempfile::TempDir;
use url::Url;

use super::client::{ApiClient, ApiOptions};
use super::error::PveError;
use super::transport::Limits;
use server::Server;

const TOKEN: &str = "nexcage@pve!node=01234567-89ab-cdef-0123-456789abcdef";
const OTHER_TOKEN: &str = "nexcage@pve!node=fedcba98-7654-3210-fedc-ba9876543210";

/// Long enough for a busy machine, and short enough to wait for.
const SOON: Duration = Duration::from_millis(700);

/// A client, and its files.
struct House {
    client: ApiClient,
    dir: TempDir,
}

impl House {
    fn new(server: &Server) -> Self {
        Self::at(&format!("https://127.0.0.1:{}", server.port), "ca.pem")
    }

    fn at(url: &str, ca: &str) -> Self {
        let limits = Limits {
            connect: Duration::from_secs(10),
            head: SOON,
            body: SOON,
        };
        Self::with(url, ca, limits, Duration::from_secs(20))
    }

    fn with(url: &str, ca: &str, limits: Limits, start: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let token_file = Utf8PathBuf::try_from(dir.path().join("token")).unwrap();
        let options = ApiOptions {
            url: Url::parse(url).unwrap(),
            ca_file: format!("{}/src/api/tests/tls/{ca}", env!("CARGO_MANIFEST_DIR")).into(),
            token_file,
            node: "pve1".into(),
        };
        let owner = rustix::process::geteuid();
        let client = ApiClient::build(options, limits, start, owner).unwrap();
        let house = Self { client, dir };
        house.write_token(TOKEN);
        house
    }

    fn write_token(&self, token: &str) {
        let file = self.dir.path().join("token");
        std::fs::write(&file, token).unwrap();
        std::fs::set_permissions(&file, Mode::from_mode(0o600)).unwrap();
    }
}

/// An error with all its reasons.
fn chain(error: &PveError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
