//! Single requests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::server::{Reply, Server, answer, data, refusal, unauthorized};
use super::{House, OTHER_TOKEN, TOKEN, chain};
use crate::api::client::{ApiClient, ApiOptions};
use crate::api::error::PveError;
use crate::api::verbs::Pve as _;

fn version() -> Reply {
    data(
        &json!({"version": "9.2.11", "release": "9.2", "repoid": "b46aac3b42da5d15", "console": "html5"}),
    )
}

/// Answers with each of `replies` in turn, and with the last for ever.
async fn server(replies: Vec<Reply>) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        replies[number.min(replies.len() - 1)].clone()
    })
    .await
}

#[tokio::test]
async fn verbs_ask_what_they_should() {
    let server = Server::start(|seen| match &seen.line["GET /api2/json/".len()..] {
        "version" => version(),
        "cluster/status" => data(&json!([
            {"type": "cluster", "id": "cluster", "name": "house", "nodes": 1, "quorate": 1, "version": 2},
            {"type": "node", "id": "node/pve1", "name": "pve1", "nodeid": 1, "online": 1, "local": 1, "ip": "10.0.0.1", "level": ""},
        ])),
        "access/permissions" => data(&json!({"/vms": {"VM.Audit": 1}})),
        "nodes/pve1/lxc" => data(&json!([
            {"vmid": "900000", "status": "running", "name": "pod-1", "tags": "k8s;nexcage", "type": "lxc", "cpus": 2, "mem": 5},
            {"vmid": 101, "status": "stopped", "name": "CT101", "type": "lxc", "maxmem": 536870912},
        ])),
        "nodes/pve1/lxc/900000/status/current" => data(&json!({
            "vmid": 900000, "status": "running", "name": "pod-1", "ha": {"managed": 0}, "cpus": 2, "cpu": 0.5, "mem": 5, "uptime": 7,
        })),
        other => panic!("{other}"),
    })
    .await;
    let client = House::new(&server);
    let client = &client.client;
    assert_eq!(client.version().await.unwrap(), "9.2.11");
    let cluster = client.cluster().await.unwrap();
    assert_eq!(
        (cluster.name.as_deref(), cluster.quorate),
        (Some("house"), true)
    );
    let permissions = client.permissions().await.unwrap();
    assert!(permissions.has("/vms/900000", "VM.Audit"));
    let list = client.containers().await.unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!((list[0].vmid, list[0].running), (900_000, true));
    let status = client.status(900_000).await.unwrap();
    assert!(status.running);
    assert!((status.cpu - 1.0).abs() < 1e-9);

    let seen = server.seen();
    for seen in &seen {
        assert!(
            seen.head
                .contains(&format!("authorization: PVEAPIToken={TOKEN}\r\n"))
        );
        assert!(
            seen.head
                .contains(&format!("host: 127.0.0.1:{}\r\n", server.port))
        );
        // pveproxy answers 501 to a GET with a body and to all that is chunked.
        assert!(!seen.head.contains("content-length: 0") && !seen.head.contains("chunked"));
        assert_eq!(seen.connection, 0, "a connection is kept");
    }
}

#[tokio::test]
async fn a_dead_connection_is_opened_again() {
    // Says that it goes on, and closes.
    let Reply::Send(good) = version() else {
        unreachable!()
    };
    let server = server(vec![Reply::Last(good)]).await;
    let house = House::new(&server);
    for number in 0..4 {
        house.client.version().await.unwrap();
        assert_eq!(server.seen()[number].connection, number);
    }
}

#[tokio::test]
async fn a_replaced_token_is_read() {
    let server = Server::start(|seen| match seen.head.contains(OTHER_TOKEN) {
        true => version(),
        false => unauthorized(),
    })
    .await;
    let house = House::new(&server);
    let error = house.client.version().await.unwrap_err();
    assert!(matches!(error, PveError::Unauthorized { .. }), "{error:?}");
    insta::assert_snapshot!(error, @"Proxmox does not accept the API token: Authentication failed!; check proxmox.token_file");
    assert_eq!(server.seen().len(), 1, "the same token is not tried again");

    house.write_token(OTHER_TOKEN);
    house.client.version().await.unwrap();
    house.client.version().await.unwrap();
    assert_eq!(server.seen().len(), 4);
    assert!(!format!("{:?}", house.client).contains("fedcba98"));
}

#[tokio::test]
async fn nothing_is_sent_without_a_good_token() {
    let server = server(vec![version()]).await;
    let house = House::new(&server);
    house.write_token("nonsense");
    let error = house.client.version().await.unwrap_err();
    assert!(matches!(error, PveError::Setup { .. }), "{error:?}");
    assert!(
        chain(&error).contains("user@realm!name=uuid"),
        "{}",
        chain(&error)
    );
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn a_missing_privilege_is_named() {
    let server = server(vec![refusal(
        403,
        "Permission check failed (/vms/100, VM.Audit)",
    )])
    .await;
    let error = House::new(&server).client.status(100).await.unwrap_err();
    insta::assert_snapshot!(error, @"the API token may not tell the status of container 100: Permission check failed (/vms/100, VM.Audit)");
    assert_eq!(error.missing_privilege(), Some(("/vms/100", "VM.Audit")));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_container_that_is_not_there() {
    let gone = "Configuration file 'nodes/pve1/lxc/100.conf' does not exist";
    let server = server(vec![refusal(500, gone)]).await;
    let error = House::new(&server).client.status(100).await.unwrap_err();
    assert!(matches!(error, PveError::NotFound { .. }), "{error:?}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn numbers_out_of_range_are_not_asked_for() {
    let server = server(vec![version()]).await;
    let error = House::new(&server).client.status(99).await.unwrap_err();
    assert!(error.to_string().contains("99 is no VMID"), "{error}");
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn a_get_is_sent_again_when_a_proxy_fails() {
    let bad = [
        answer("595 Connection refused", ""),
        answer("596 Connection timed out", ""),
    ];
    let replies = bad.into_iter().chain([version()]).collect();
    let server = server(replies).await;
    House::new(&server).client.version().await.unwrap();
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_get_is_sent_again_when_the_connection_breaks_but_not_for_ever() {
    let truncated = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"data\":";
    for reply in ["", "HTTP/1.1 200", truncated, "no HTTP at all\r\n\r\n"] {
        let server = server(vec![Reply::Last(reply.into())]).await;
        let error = House::new(&server).client.version().await.unwrap_err();
        assert!(matches!(error, PveError::Unreachable { .. }), "{error:?}");
        assert!(error.is_retryable());
        assert_eq!(server.seen().len(), 3, "{reply}");
    }
}

#[tokio::test]
async fn an_error_of_the_proxy_is_told() {
    let server = server(vec![answer("595 Connection refused", "")]).await;
    let error = House::new(&server).client.version().await.unwrap_err();
    assert!(
        chain(&error).contains("HTTP 595: Connection refused"),
        "{}",
        chain(&error)
    );
    assert!(error.is_retryable());
}

#[tokio::test]
async fn html_is_not_understood() {
    let page = "<!DOCTYPE html>\n<html><head><title>pve1 - Proxmox Virtual Environment</title>";
    let server = server(vec![answer("200 OK", page)]).await;
    let error = House::new(&server).client.version().await.unwrap_err();
    assert!(chain(&error).contains("<html><head>"), "{}", chain(&error));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn stalls_have_an_end() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    for reply in ["", head, &format!("{head}{{\"data\":")] {
        let server = server(vec![Reply::Stall(reply.into())]).await;
        let house = House::new(&server);
        let begun = Instant::now();
        let error = house.client.version().await.unwrap_err();
        assert!(matches!(error, PveError::Deadline { .. }), "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_long_answer_is_not_read() {
    let announced = "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".to_owned();
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(9 << 20));
    for reply in [announced, endless] {
        let server = server(vec![Reply::Stall(reply)]).await;
        let limits = crate::api::transport::Limits::default();
        let url = format!("https://127.0.0.1:{}", server.port);
        let house = House::with(&url, "ca.pem", limits, limits.connect);
        let error = house.client.version().await.unwrap_err();
        assert!(
            chain(&error).contains("more than 8388608 bytes"),
            "{}",
            chain(&error)
        );
    }
}

#[tokio::test]
async fn another_authority_is_not_believed() {
    let server = server(vec![version()]).await;
    let url = format!("https://127.0.0.1:{}", server.port);
    let error = House::at(&url, "other-ca.pem")
        .client
        .version()
        .await
        .unwrap_err();
    assert!(matches!(error, PveError::Setup { .. }), "{error:?}");
    assert!(chain(&error).contains("certificate"), "{}", chain(&error));
    assert!(error.to_string().contains("proxmox.ca_file"), "{error}");
    assert_eq!(server.seen().len(), 0, "the token was not sent");
}

#[tokio::test]
async fn the_certificate_must_be_for_the_host() {
    let server = server(vec![version()]).await;
    let good = House::at(&format!("https://localhost:{}", server.port), "ca.pem");
    good.client.version().await.unwrap();
    let bad = House::at(&format!("https://127.0.0.2:{}", server.port), "ca.pem");
    let error = bad.client.version().await.unwrap_err();
    // Nobody listens there, or it is another's certificate: never an answer.
    assert!(!matches!(error, PveError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn a_ca_file_that_is_none() {
    let server = server(vec![version()]).await;
    let url = format!("https://127.0.0.1:{}", server.port);
    for file in ["missing.pem", "server.key"] {
        let error = House::at(&url, file).client.version().await.unwrap_err();
        assert!(matches!(error, PveError::Setup { .. }), "{error:?}");
        assert!(error.to_string().contains(file), "{error}");
    }
}

#[tokio::test]
async fn nobody_there() {
    let server = server(vec![version()]).await;
    let house = House::new(&server);
    drop(server);
    // The port is free again: connecting fails at once.
    let error = house.client.version().await.unwrap_err();
    assert!(matches!(error, PveError::Unreachable { .. }), "{error:?}");
    assert!(error.is_retryable());
}

#[test]
fn bad_options_are_named() {
    let options = |url: &str, node: &str| ApiOptions {
        url: url.parse().unwrap(),
        ca_file: "/ca".into(),
        token_file: "/token".into(),
        node: node.into(),
    };
    assert!(ApiClient::new(options("https://[::1]:8006/", "pve1")).is_ok());
    for (url, node, named) in [
        ("http://127.0.0.1:8006", "pve1", "http://127.0.0.1:8006"),
        ("https://127.0.0.1:8006", "", "\"\""),
        ("https://127.0.0.1:8006", "pve1/../pve2", "pve1/../pve2"),
        ("https://127.0.0.1:8006", "-pve", "-pve"),
    ] {
        let error = ApiClient::new(options(url, node)).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
        assert!(!error.is_retryable());
    }
}
