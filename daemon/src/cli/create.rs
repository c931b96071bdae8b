//! `nexcage create`: a pod, and a container that waits in it.

use std::process::ExitCode;

use nexcage_cri_api::v1;
use serde::Serialize;

use super::args::{CreateArgs, Format};
use super::client::Client;
use super::delete::remove_pod;
use super::error::CliError;
use super::human::short_id;
use super::make::{create_container, provide_image, random_hex, start_container, start_pod};
use super::output::{print, print_json};
use super::pod_spec::{self, Program};
use super::resolve::{Inventory, pod_name};

/// What `--output json` prints.
#[derive(Debug, Serialize)]
struct Created {
    pod_id: String,
    container_id: Option<String>,
    name: String,
    /// `created` or `running`.
    state: Option<&'static str>,
}

/// Creates a pod of one container.
pub(super) async fn run(mut client: Client, args: CreateArgs) -> Result<ExitCode, CliError> {
    let name = pod_spec::name(Some(&args.name), "", "")?;
    let pod = pod_spec::sandbox(&args.new, &name, &random_hex(16))?;
    let inventory = Inventory::fetch(&mut client).await?;
    refuse_namesake(&inventory, &name, &args.new.namespace)?;
    if let Some(image) = &args.image {
        Box::pin(provide_image(&mut client, image, args.new.pull)).await?;
    }
    let pod_id = Box::pin(start_pod(&mut client, pod.clone(), &args.new)).await?;
    let container = match Box::pin(fill(&mut client, &args, &name, &pod_id, pod)).await {
        Ok(container) => container,
        Err(error) => {
            // Nobody asked for a pod without the container.
            if let Err(left) = remove_pod(&mut client, &pod_id).await {
                left.report();
            }
            return Err(error);
        }
    };
    let created = Created {
        pod_id,
        state: container.as_ref().map(|_| match args.start {
            true => "running",
            false => "created",
        }),
        container_id: container,
        name,
    };
    match args.output.output {
        Format::Json => print_json(&created)?,
        Format::Table => print(&format!("{}\n", created.pod_id))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the container, if there is to be one, and starts it, if it is to run.
async fn fill(
    client: &mut Client,
    args: &CreateArgs,
    name: &str,
    pod_id: &str,
    pod: v1::PodSandboxConfig,
) -> Result<Option<String>, CliError> {
    let Some(image) = &args.image else {
        return Ok(None);
    };
    let program = Program {
        image,
        command: &args.command,
    };
    let metadata = pod.metadata.clone().unwrap_or_default();
    let config = pod_spec::container(&args.new, program, name, &metadata);
    let id = Box::pin(create_container(client, pod_id, pod, config)).await?;
    if args.start {
        start_container(client, &id).await?;
    }
    Ok(Some(id))
}

/// What is created is started, stopped and deleted by its name, so that no other pod may have it.
fn refuse_namesake(inventory: &Inventory, name: &str, namespace: &str) -> Result<(), CliError> {
    let same = |pod: &&v1::PodSandbox| {
        let its = pod.metadata.as_ref().map_or("", |m| &m.namespace);
        pod_name(pod) == name && its == namespace
    };
    match inventory.pods.iter().find(same) {
        None => Ok(()),
        Some(pod) => Err(CliError::State(format!(
            "there is a pod {name} in namespace {namespace} already ({}); remove it with `nexcage delete --force \
             --name {name}`, or choose another name",
            short_id(&pod.id)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_given_once_in_a_namespace() {
        let inventory = Inventory {
            pods: vec![v1::PodSandbox {
                id: "3fa9c1d2e4f5aa".into(),
                metadata: Some(v1::PodSandboxMetadata {
                    name: "web".into(),
                    namespace: "default".into(),
                    ..Default::default()
                }),
                ..Default::default()
            }],
            containers: Vec::new(),
        };
        let error = refuse_namesake(&inventory, "web", "default").unwrap_err();
        assert!(error.to_string().contains("3fa9c1d2e4f5"), "{error}");
        refuse_namesake(&inventory, "web", "other").unwrap();
        refuse_namesake(&inventory, "db", "default").unwrap();
    }
}
