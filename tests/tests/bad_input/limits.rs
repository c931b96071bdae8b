//! UpdatePodSandboxResources.

use nexcage_cri_api::v1::*;
use nexcage_tests::request::pod;
use tonic::Code;

use crate::asking::{Findings, Spoiled, with_client};

const LIMITS: [Spoiled<UpdatePodSandboxResourcesRequest>; 4] = [
    (
        "a period below the kernel's",
        |r| resources(r).cpu_period = 10,
        "resources.cpu_period",
    ),
    (
        "shares below 0",
        |r| resources(r).cpu_shares = -1,
        "resources.cpu_shares",
    ),
    (
        "less swap than memory",
        |r| resources(r).memory_swap_limit_in_bytes = 1,
        "resources.memory_swap_limit_in_bytes",
    ),
    (
        "an overhead without an end",
        |r| r.overhead.get_or_insert_default().memory_limit_in_bytes = -1,
        "overhead.memory_limit_in_bytes",
    ),
];

const UNSUPPORTED: [Spoiled<UpdatePodSandboxResourcesRequest>; 4] = [
    (
        "processors",
        |r| resources(r).cpuset_cpus = "0".into(),
        "resources.cpuset_cpus",
    ),
    (
        "a score of the OOM killer",
        |r| resources(r).oom_score_adj = 7,
        "resources.oom_score_adj",
    ),
    (
        "huge pages",
        |r| {
            resources(r).hugepage_limits = vec![HugepageLimit {
                page_size: "2MB".into(),
                limit: 1,
            }];
        },
        "resources.hugepage_limits[0]",
    ),
    (
        "any file of the cgroup",
        |r| {
            let unified = &mut resources(r).unified;
            unified.insert("pids.max".into(), "1".into());
        },
        "pids.max",
    ),
];

fn resources(request: &mut UpdatePodSandboxResourcesRequest) -> &mut LinuxContainerResources {
    request.resources.get_or_insert_default()
}

#[test]
fn limits_of_a_pod() {
    with_client(async |_, mut client| {
        let mut findings = Findings::default();
        let run = RunPodSandboxRequest {
            config: Some(pod("limits")),
            ..Default::default()
        };
        let answer = client.runtime.run_pod_sandbox(run).await?;
        let pod_sandbox_id = answer.into_inner().pod_sandbox_id;
        let request = || UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: pod_sandbox_id.clone(),
            resources: Some(LinuxContainerResources {
                memory_limit_in_bytes: 64 << 20,
                cpu_quota: 50_000,
                cpu_period: 100_000,
                ..Default::default()
            }),
            overhead: None,
        };
        for (what, spoil, word) in LIMITS {
            let mut bad = request();
            spoil(&mut bad);
            let answer = client.runtime.update_pod_sandbox_resources(bad).await;
            findings.invalid(what, answer, word);
        }
        for (what, spoil, word) in UNSUPPORTED {
            let mut bad = request();
            spoil(&mut bad);
            let answer = client.runtime.update_pod_sandbox_resources(bad).await;
            findings.refused(what, answer, &[Code::Unimplemented], word);
        }
        let mut nobody = request();
        nobody.pod_sandbox_id = "e".repeat(64);
        let answer = client.runtime.update_pod_sandbox_resources(nobody).await;
        findings.refused("nobody", answer, &[Code::NotFound], "eeee");

        // Good ones are set, or refused with what the machine lacks.
        let answer = client.runtime.update_pod_sandbox_resources(request()).await;
        if camino::Utf8Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            findings.accepted("limits", answer);
        } else {
            let codes = [Code::FailedPrecondition];
            findings.refused("limits", answer, &codes, "unified_cgroup_hierarchy");
        }
        let stop = StopPodSandboxRequest {
            pod_sandbox_id: pod_sandbox_id.clone(),
        };
        client.runtime.stop_pod_sandbox(stop).await?;
        let answer = client.runtime.update_pod_sandbox_resources(request()).await;
        let codes = [Code::FailedPrecondition];
        findings.refused("a pod that has ended", answer, &codes, "not ready");
        findings.none()
    });
}
