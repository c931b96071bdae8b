//! What a container may use.

use super::*;

fn all_limits() -> Resources {
    Resources {
        cpu_period_us: Some(100_000),
        cpu_quota_us: Some(50_000),
        cpu_shares: Some(512),
        memory_bytes: Some(64 << 20),
        memory_swap_bytes: Some(96 << 20),
        oom_score_adj: 500,
        cpuset_cpus: "0-1".into(),
        cpuset_mems: "0".into(),
        hugepages: vec![
            HugepageLimit {
                page_size: "2MB".into(),
                limit: 4 << 20,
            },
            HugepageLimit {
                page_size: "1GB".into(),
                limit: 0,
            },
        ],
        unified: [("memory.oom.group".to_owned(), "1".to_owned())].into(),
    }
}

#[test]
fn limits() {
    insta::assert_snapshot!("limits", effect(|f| f.config.resources = all_limits()));
    insta::assert_snapshot!(
        "memory_without_swap",
        effect(|f| {
            f.config.resources.memory_bytes = Some(1 << 20);
        })
    );
    insta::assert_snapshot!(
        "no_cgroups",
        effect(|f| {
            f.config.resources = all_limits();
            f.cgroup = None;
        })
    );
}

#[test]
fn limits_that_the_kernel_does_not_have() {
    let mut fixture = plain();
    fixture.config.resources = all_limits();
    fixture.node.swap_accounting = false;
    assert!(
        fixture
            .refused()
            .starts_with("config.linux.resources.memory_swap_limit_in_bytes: ")
    );
    fixture.config.resources.memory_swap_bytes = None;
    fixture.node.hugetlb = false;
    assert!(
        fixture
            .refused()
            .starts_with("config.linux.resources.hugepage_limits[0]: ")
    );
    // kubelet's zeros for every page size do no harm.
    fixture.config.resources.hugepages.remove(0);
    let spec = json(&fixture.build().unwrap());
    let resources = &spec["linux"]["resources"];
    assert_eq!(
        resources["hugepageLimits"],
        serde_json::json!([]),
        "{resources}"
    );
    assert_eq!(
        resources["memory"],
        serde_json::json!({"limit": 64 << 20}),
        "{resources}"
    );
}

#[test]
fn less_swap_than_memory() {
    let mut fixture = plain();
    fixture.config.resources.memory_bytes = Some(2);
    fixture.config.resources.memory_swap_bytes = Some(1);
    assert!(fixture.refused().contains("cannot be less than memory"));
}
