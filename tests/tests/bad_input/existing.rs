//! Requests about what is not there, and commands in what is.

use anyhow::ensure;
use nexcage_cri_api::v1::*;
use nexcage_tests::spec;
use tonic::Code;

use crate::asking::{Findings, with_client};

#[test]
fn ids_that_nobody_has() {
    with_client(async |_, mut client| {
        let mut findings = Findings::default();
        let nobody = "e".repeat(64);
        for (id, codes, word) in [
            (nobody.as_str(), [Code::NotFound].as_slice(), "eeee"),
            ("", &[Code::InvalidArgument], "_id"),
            (
                "../../etc/passwd",
                &[Code::NotFound, Code::InvalidArgument],
                "",
            ),
        ] {
            let pod = || id.to_owned();
            let ctr = || id.to_owned();
            let runtime = &mut client.runtime;
            let ask = PodSandboxStatusRequest {
                pod_sandbox_id: pod(),
                verbose: true,
            };
            findings.refused(
                "PodSandboxStatus",
                runtime.pod_sandbox_status(ask).await,
                codes,
                word,
            );
            let ask = PodSandboxStatsRequest {
                pod_sandbox_id: pod(),
            };
            findings.refused(
                "PodSandboxStats",
                runtime.pod_sandbox_stats(ask).await,
                codes,
                word,
            );
            let ask = StartContainerRequest {
                container_id: ctr(),
            };
            findings.refused(
                "StartContainer",
                runtime.start_container(ask).await,
                codes,
                word,
            );
            let ask = ContainerStatusRequest {
                container_id: ctr(),
                verbose: true,
            };
            findings.refused(
                "ContainerStatus",
                runtime.container_status(ask).await,
                codes,
                word,
            );
            let ask = ContainerStatsRequest {
                container_id: ctr(),
            };
            findings.refused(
                "ContainerStats",
                runtime.container_stats(ask).await,
                codes,
                word,
            );
            let ask = ReopenContainerLogRequest {
                container_id: ctr(),
            };
            findings.refused(
                "ReopenContainerLog",
                runtime.reopen_container_log(ask).await,
                codes,
                word,
            );
            let ask = UpdateContainerResourcesRequest {
                container_id: ctr(),
                linux: Some(LinuxContainerResources::default()),
                ..Default::default()
            };
            let answer = runtime.update_container_resources(ask).await;
            findings.refused("UpdateContainerResources", answer, codes, word);
            let ask = ExecSyncRequest {
                container_id: ctr(),
                cmd: vec!["true".into()],
                timeout: 1,
            };
            findings.refused("ExecSync", runtime.exec_sync(ask).await, codes, word);
        }

        // What is not there is stopped and removed already.
        let runtime = &mut client.runtime;
        let ask = StopContainerRequest {
            container_id: nobody.clone(),
            timeout: 1,
        };
        findings.accepted("StopContainer", runtime.stop_container(ask).await);
        let ask = RemoveContainerRequest {
            container_id: nobody.clone(),
        };
        findings.accepted("RemoveContainer", runtime.remove_container(ask).await);
        let ask = StopPodSandboxRequest {
            pod_sandbox_id: nobody.clone(),
        };
        findings.accepted("StopPodSandbox", runtime.stop_pod_sandbox(ask).await);
        let ask = RemovePodSandboxRequest {
            pod_sandbox_id: nobody.clone(),
        };
        findings.accepted("RemovePodSandbox", runtime.remove_pod_sandbox(ask).await);
        findings.none()
    });
}

#[test]
fn commands_in_a_container() {
    with_client(async |machine, mut client| {
        machine.pull_busybox()?;
        let mut findings = Findings::default();
        let pod = machine.run_pod("execs")?;
        let container_id = machine.start(&pod, &spec::shell("counter", spec::COUNT))?;
        let exec = |cmd: &[&str], timeout| ExecSyncRequest {
            container_id: container_id.clone(),
            cmd: cmd.iter().map(|&word| word.to_owned()).collect(),
            timeout,
        };
        findings.invalid(
            "no command",
            client.runtime.exec_sync(exec(&[], 1)).await,
            "cmd",
        );
        let answer = client.runtime.exec_sync(exec(&["true"], -1)).await;
        findings.invalid("a timeout below 0", answer, "timeout");
        let answer = client.runtime.exec_sync(exec(&["sleep", "100"], 1)).await;
        findings.refused("a timeout", answer, &[Code::DeadlineExceeded], "");

        // More output than is kept, without a limit the daemon would run out of memory.
        let flood = ["sh", "-c", "head -c 40000000 /dev/zero"];
        let mut large = client.runtime.clone().max_decoding_message_size(64 << 20);
        let answer = large.exec_sync(exec(&flood, 60)).await?.into_inner();
        ensure!(
            answer.stdout.len() <= 16 << 20,
            "{} bytes of output",
            answer.stdout.len()
        );
        findings.none()
    });
}
