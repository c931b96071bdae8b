//! The contract we compile is the one the pinned Go module carries.
//!
//! `tests/descriptor/` is a Go module that requires `k8s.io/cri-api` at a fixed version
//! and prints its file descriptor. Both descriptors are brought into one form, in
//! which nothing is left that is not on the wire, and printed as text, so that a
//! difference shows up as the line it is in.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, ServiceDescriptorProto,
};

#[test]
fn contract_is_that_of_the_go_module() {
    let ours = lines(&our_descriptor());
    let theirs = lines(&go_descriptor());

    let missing: Vec<_> = theirs.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&theirs).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "proto/runtime/v1/api.proto differs from the Go module:\n  only there: {missing:#?}\n  only here: {extra:#?}"
    );

    let calls = ours.iter().filter(|line| line.contains(" rpc ")).count();
    assert_eq!(calls, 43, "number of calls");
}

/// A comparison that finds nothing is worth nothing: each kind of mistake must be seen.
#[test]
fn each_kind_of_difference_is_seen() {
    type Change = fn(&mut FileDescriptorProto);
    let changes: [(&str, Change); 8] = [
        ("tag", |f| {
            f.message_type[0].field[0].number = Some(77);
        }),
        ("type", |f| {
            f.message_type[0].field[0].r#type = Some(Type::Bytes.into());
        }),
        ("name", |f| {
            f.message_type[0].field[0].name = Some("other".to_owned());
        }),
        ("label", |f| {
            f.message_type[0].field[0].label = Some(Label::Repeated.into());
        }),
        ("enum number", |f| {
            f.enum_type[0].value[1].number = Some(77);
        }),
        ("call", |f| {
            f.service[0].method[0].name = Some("Other".to_owned());
        }),
        ("streaming", |f| {
            f.service[0].method[0].server_streaming = Some(true);
        }),
        ("package", |f| {
            f.package = Some("runtime.v2".to_owned());
        }),
    ];
    let right = our_descriptor();
    for (what, change) in changes {
        let mut wrong = right.clone();
        change(&mut wrong);
        assert_ne!(
            lines(&wrong),
            lines(&right),
            "a wrong {what} goes unnoticed"
        );
    }
}

fn our_descriptor() -> FileDescriptorProto {
    let set = FileDescriptorSet::decode(nexcage_cri_api::FILE_DESCRIPTOR_SET)
        .expect("our own descriptors decode");
    assert_eq!(set.file.len(), 1, "the contract is one file");
    set.file.into_iter().next().expect("one file")
}

#[allow(
    clippy::disallowed_methods,
    reason = "a test runs `go` as a developer would"
)]
fn go_descriptor() -> FileDescriptorProto {
    let module = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/descriptor");
    let output = std::process::Command::new("go")
        .args(["run", "-mod=readonly", "."])
        .current_dir(module)
        .output()
        .unwrap_or_else(|error| {
            panic!("cannot run `go`, which this test needs (`cargo xtask deps` checks it): {error}")
        });
    assert!(
        output.status.success(),
        "`go run .` in {module} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("base64 is ASCII");
    let raw = STANDARD.decode(text.trim()).expect("base64");
    FileDescriptorProto::decode(raw.as_slice()).expect("a FileDescriptorProto")
}

/// Everything the wire depends on, one fact per line. Left out: the order of
/// declarations, comments, the options for Go code, JSON names, the file's name.
fn lines(file: &FileDescriptorProto) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let package = file.package();
    out.insert(format!("package {package} syntax {}", file.syntax()));
    for message in &file.message_type {
        message_lines(package, message, &mut out);
    }
    for declared in &file.enum_type {
        enum_lines(package, declared, &mut out);
    }
    for service in &file.service {
        service_lines(package, service, &mut out);
    }
    out
}

fn message_lines(scope: &str, message: &DescriptorProto, out: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", message.name());
    let map_entry = message.options.as_ref().is_some_and(|o| o.map_entry());
    out.insert(format!("message {name} map_entry={map_entry}"));
    for field in &message.field {
        out.insert(field_line(&name, message, field));
    }
    for range in &message.reserved_range {
        out.insert(format!(
            "message {name} reserved {}..{}",
            range.start(),
            range.end()
        ));
    }
    for reserved in &message.reserved_name {
        out.insert(format!("message {name} reserved name {reserved}"));
    }
    for nested in &message.nested_type {
        message_lines(&name, nested, out);
    }
    for nested in &message.enum_type {
        enum_lines(&name, nested, out);
    }
}

fn field_line(scope: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let mut line = format!(
        "field {scope}.{} = {} {:?} {:?} {}",
        field.name(),
        field.number(),
        field.label(),
        field.r#type(),
        field.type_name()
    );
    if let Some(index) = field.oneof_index {
        let oneof = usize::try_from(index)
            .ok()
            .and_then(|i| message.oneof_decl.get(i));
        write!(line, " oneof {:?}", oneof.map(|o| o.name())).expect("to a String");
    }
    if field.proto3_optional() {
        line.push_str(" optional");
    }
    if let Some(options) = &field.options {
        // `deprecated` is not on the wire, but readers of the contract rely on it.
        // `debug_redact` is unknown to prost; src/redact.rs has tests of its own.
        write!(line, " packed={:?}", options.packed).expect("to a String");
        write!(line, " deprecated={}", options.deprecated()).expect("to a String");
    }
    line
}

fn enum_lines(scope: &str, declared: &EnumDescriptorProto, out: &mut BTreeSet<String>) {
    let name = format!("{scope}.{}", declared.name());
    let alias = declared.options.as_ref().is_some_and(|o| o.allow_alias());
    out.insert(format!("enum {name} allow_alias={alias}"));
    for value in &declared.value {
        out.insert(format!("enum {name} {} = {}", value.name(), value.number()));
    }
    for range in &declared.reserved_range {
        out.insert(format!(
            "enum {name} reserved {}..={}",
            range.start(),
            range.end()
        ));
    }
    for reserved in &declared.reserved_name {
        out.insert(format!("enum {name} reserved name {reserved}"));
    }
}

fn service_lines(package: &str, service: &ServiceDescriptorProto, out: &mut BTreeSet<String>) {
    for method in &service.method {
        out.insert(format!(
            "service {package}.{} rpc {}({} stream={}) returns ({} stream={})",
            service.name(),
            method.name(),
            method.input_type(),
            method.client_streaming(),
            method.output_type(),
            method.server_streaming(),
        ));
    }
}
