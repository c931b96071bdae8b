//! `nexcage version`.

use std::process::ExitCode;

use camino::Utf8Path;
use nexcage_cri_api::v1;
use serde::Serialize;

use super::args::{Format, VersionArgs};
use super::client::{Client, request};
use super::error::CliError;
use super::output::{print, print_json};
use super::table::Table;

/// What `--output json` prints.
#[derive(Debug, Serialize)]
struct Versions {
    client: ClientVersion,
    /// `null` if the daemon does not answer.
    server: Option<ServerVersion>,
}

#[derive(Debug, Serialize)]
struct ClientVersion {
    version: &'static str,
}

#[derive(Debug, Serialize)]
struct ServerVersion {
    name: String,
    version: String,
    api_version: String,
}

/// Prints both versions. Without a daemon, the client's is printed before the failure.
pub(super) async fn run(socket: &Utf8Path, args: &VersionArgs) -> Result<ExitCode, CliError> {
    let client = ClientVersion {
        version: env!("CARGO_PKG_VERSION"),
    };
    let (server, problem) = match ask(socket).await {
        Ok(server) => (Some(server), None),
        Err(error) => (None, Some(error)),
    };
    let versions = Versions { client, server };
    match args.output.output {
        Format::Json => print_json(&versions)?,
        Format::Table => print(&table(&versions))?,
    }
    problem.map_or(Ok(ExitCode::SUCCESS), Err)
}

async fn ask(socket: &Utf8Path) -> Result<ServerVersion, CliError> {
    let mut client = Client::connect(socket).await?;
    // The version of kubelet's own handshake.
    let message = v1::VersionRequest {
        version: "0.1.0".to_owned(),
    };
    let answer = client
        .runtime
        .version(request(message))
        .await
        .map_err(CliError::rpc("cannot ask for the daemon's version"))?;
    let v1::VersionResponse {
        version: _,
        runtime_name,
        runtime_version,
        runtime_api_version,
    } = answer.into_inner();
    Ok(ServerVersion {
        name: runtime_name,
        version: runtime_version,
        api_version: runtime_api_version,
    })
}

fn table(versions: &Versions) -> String {
    let mut table = Table::new(&["", "NAME", "VERSION", "CRI"]);
    let client = versions.client.version.to_owned();
    table.row([
        "client".to_owned(),
        "nexcage".to_owned(),
        client,
        "v1".to_owned(),
    ]);
    if let Some(server) = &versions.server {
        table.row([
            "server".to_owned(),
            server.name.clone(),
            server.version.clone(),
            server.api_version.clone(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions() -> Versions {
        let server = ServerVersion {
            name: "nexcage".into(),
            version: "0.2.0".into(),
            api_version: "v1".into(),
        };
        Versions {
            client: ClientVersion { version: "0.1.0" },
            server: Some(server),
        }
    }

    #[test]
    fn both_versions_are_shown() {
        insta::assert_snapshot!(table(&versions()), @r"
                 NAME      VERSION   CRI
        client   nexcage   0.1.0     v1
        server   nexcage   0.2.0     v1
        ");
    }

    #[test]
    fn programs_get_json() {
        insta::assert_json_snapshot!(versions(), @r#"
        {
          "client": {
            "version": "0.1.0"
          },
          "server": {
            "name": "nexcage",
            "version": "0.2.0",
            "api_version": "v1"
          }
        }
        "#);
    }
}
