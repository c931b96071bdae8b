//! `ContainerConfig` to [`ContainerSpec`]. Every field of every message is named here: used, or refused.

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use nexcage_cri_api::v1;

use super::container_security::security_context;
use super::user_namespace::mount_mapping;
use crate::containers::config::{
    ContainerSpec, Device, EnvVar, HugepageLimit, ImageSpec, Mount, MountFlag, MountSource,
    Propagation, Resources,
};
use crate::containers::signal::Signal;
use crate::cri::invalid::InvalidField;

type Checked<T> = Result<T, InvalidField>;

/// Turns the message into a container's specification.
///
/// # Errors
///
/// [`InvalidField`] names the first field that is missing, contradictory or not supported.
pub(crate) fn container_spec(config: v1::ContainerConfig) -> Checked<ContainerSpec> {
    let v1::ContainerConfig {
        metadata,
        image,
        command,
        args,
        working_dir,
        envs,
        mounts,
        devices,
        labels,
        annotations,
        log_path,
        stdin,
        stdin_once,
        tty,
        linux,
        windows,
        cdi_devices,
        stop_signal,
    } = config;
    let v1::ContainerMetadata { name, attempt } =
        metadata.ok_or_else(|| InvalidField::invalid("config.metadata", "is missing"))?;
    if name.is_empty() {
        return Err(InvalidField::invalid("config.metadata.name", "is empty"));
    }
    no_nul("config.metadata.name", &name)?;
    let image = image_spec("config.image", image.unwrap_or_default())?;
    if windows.is_some() {
        return Err(InvalidField::unsupported(
            "config.windows",
            "this is a Linux node",
        ));
    }
    if let Some(v1::CdiDevice { name }) = cdi_devices.first() {
        return Err(InvalidField::unsupported(
            "config.CDI_devices",
            format!("nexcage does not inject CDI devices yet ({name:?}); list them in devices"),
        ));
    }
    no_nuls("config.command", &command)?;
    no_nuls("config.args", &args)?;
    if !working_dir.is_empty() {
        absolute("config.working_dir", &working_dir)?;
    }
    check_log_path(&log_path)?;
    let v1::LinuxContainerConfig {
        resources: limits,
        security_context: security,
    } = linux.unwrap_or_default();
    Ok(ContainerSpec {
        name,
        attempt,
        image,
        command,
        args,
        working_dir,
        envs: numbered(envs, env)?,
        mounts: distinct(numbered(mounts, mount)?)?,
        devices: numbered(devices, device)?,
        labels: labels.into_iter().collect(),
        annotations: annotations.into_iter().collect(),
        log_path,
        stdin,
        stdin_once,
        tty,
        resources: resources("config.linux.resources", limits.unwrap_or_default())?,
        security: security_context(security.unwrap_or_default())?,
        stop_signal: signal(stop_signal)?,
    })
}

/// Applies `convert` to every element, with its index for the field's name.
fn numbered<T, U>(list: Vec<T>, convert: fn(usize, T) -> Checked<U>) -> Checked<Vec<U>> {
    list.into_iter()
        .enumerate()
        .map(|(n, item)| convert(n, item))
        .collect()
}

pub(super) fn no_nul(field: &str, text: &str) -> Checked<()> {
    if text.contains('\0') {
        return Err(InvalidField::invalid(field, "contains a NUL byte"));
    }
    Ok(())
}

fn no_nuls(field: &str, list: &[String]) -> Checked<()> {
    list.iter()
        .enumerate()
        .try_for_each(|(n, text)| no_nul(&format!("{field}[{n}]"), text))
}

/// An absolute path without `..`, cleaned of `.` and doubled slashes.
pub(super) fn absolute(field: &str, text: &str) -> Checked<Utf8PathBuf> {
    no_nul(field, text)?;
    if !text.starts_with('/') {
        return Err(InvalidField::invalid(
            field,
            format!("{text:?} is not an absolute path"),
        ));
    }
    normalised(field, text)
}

/// The path without `.` and doubled slashes; `..` is refused.
fn normalised(field: &str, text: &str) -> Checked<Utf8PathBuf> {
    let path = Utf8Path::new(text);
    if path
        .components()
        .any(|part| part == Utf8Component::ParentDir)
    {
        return Err(InvalidField::invalid(
            field,
            format!("{text:?} contains '..'"),
        ));
    }
    Ok(path
        .components()
        .filter(|part| *part != Utf8Component::CurDir)
        .collect())
}

/// The log stays below the pod's log directory.
fn check_log_path(path: &str) -> Checked<()> {
    const FIELD: &str = "config.log_path";
    no_nul(FIELD, path)?;
    if path.starts_with('/') {
        let problem = format!("{path:?} is not relative to the pod's log_directory");
        return Err(InvalidField::invalid(FIELD, problem));
    }
    let clean = normalised(FIELD, path)?;
    if !path.is_empty() && (clean.as_str().is_empty() || path.ends_with('/')) {
        return Err(InvalidField::invalid(
            FIELD,
            format!("{path:?} names no file"),
        ));
    }
    Ok(())
}

fn image_spec(field: &str, spec: v1::ImageSpec) -> Checked<ImageSpec> {
    let v1::ImageSpec {
        image,
        annotations,
        user_specified_image,
        runtime_handler,
        image_ref,
    } = spec;
    if image.is_empty() {
        return Err(InvalidField::invalid(format!("{field}.image"), "is empty"));
    }
    Ok(ImageSpec {
        image,
        annotations: annotations.into_iter().collect(),
        user_specified_image,
        runtime_handler,
        image_ref,
    })
}

fn env(n: usize, variable: v1::KeyValue) -> Checked<EnvVar> {
    let v1::KeyValue { key: name, value } = variable;
    let field = |part: &str| format!("config.envs[{n}].{part}");
    if name.is_empty() || name.contains('=') {
        return Err(InvalidField::invalid(
            field("key"),
            format!("{name:?} is empty or has a '='"),
        ));
    }
    no_nul(&field("key"), &name)?;
    // The value may be a secret, so messages have the name alone.
    let value = String::from_utf8(value).map_err(|_| {
        let problem = format!(
            "the value of {name} is not UTF-8, which the OCI configuration (JSON) cannot hold; \
             mount it as a file or encode it"
        );
        InvalidField::unsupported(field("value"), problem)
    })?;
    if value.contains('\0') {
        let problem = format!("the value of {name} contains a NUL byte");
        return Err(InvalidField::invalid(field("value"), problem));
    }
    Ok(EnvVar { name, value })
}

fn mount(n: usize, mount: v1::Mount) -> Checked<Mount> {
    let v1::Mount {
        container_path,
        host_path,
        readonly,
        selinux_relabel,
        propagation,
        uid_mappings,
        gid_mappings,
        recursive_read_only,
        image,
        image_sub_path,
        mount_options,
    } = mount;
    let field = |name: &str| format!("config.mounts[{n}].{name}");
    let container_path = absolute(&field("container_path"), &container_path)?;
    if container_path == "/" {
        let problem = "is the root directory, which comes from the image";
        return Err(InvalidField::invalid(field("container_path"), problem));
    }
    let propagation = match v1::MountPropagation::try_from(propagation) {
        Ok(v1::MountPropagation::PropagationPrivate) => Propagation::Private,
        Ok(v1::MountPropagation::PropagationHostToContainer) => Propagation::HostToContainer,
        Ok(v1::MountPropagation::PropagationBidirectional) => Propagation::Bidirectional,
        Err(_) => return Err(unknown_number(&field("propagation"), propagation)),
    };
    let is_image = image.is_some();
    let source = match image {
        Some(image) => image_source(&field, image, &host_path, &image_sub_path)?,
        None => host_source(&field, &host_path, &image_sub_path)?,
    };
    if is_image && !readonly {
        return Err(InvalidField::invalid(
            field("readonly"),
            "must be true for an image",
        ));
    }
    if is_image && propagation != Propagation::Private {
        let problem = "must be PROPAGATION_PRIVATE for an image";
        return Err(InvalidField::invalid(field("propagation"), problem));
    }
    if recursive_read_only && !(readonly && propagation == Propagation::Private) {
        let problem = "needs readonly to be true and propagation to be PROPAGATION_PRIVATE";
        return Err(InvalidField::invalid(field("recursive_read_only"), problem));
    }
    Ok(Mount {
        container_path,
        source,
        readonly,
        recursive_read_only,
        propagation,
        selinux_relabel,
        mapping: mount_mapping(&field, &uid_mappings, &gid_mappings)?,
        options: mount_flags(&field("mount_options"), &mount_options)?,
    })
}

fn host_source(field: &dyn Fn(&str) -> String, host: &str, sub: &str) -> Checked<MountSource> {
    if !sub.is_empty() {
        let problem = "is given without image";
        return Err(InvalidField::invalid(field("image_sub_path"), problem));
    }
    if host.is_empty() {
        let problem = "is empty, and there is no image to mount instead";
        return Err(InvalidField::invalid(field("host_path"), problem));
    }
    absolute(&field("host_path"), host).map(MountSource::HostPath)
}

fn image_source(
    field: &dyn Fn(&str) -> String,
    image: v1::ImageSpec,
    host: &str,
    sub: &str,
) -> Checked<MountSource> {
    if !host.is_empty() {
        return Err(InvalidField::invalid(
            field("host_path"),
            "must be empty beside image",
        ));
    }
    let image = image_spec(&field("image"), image)?;
    no_nul(&field("image_sub_path"), sub)?;
    if sub.starts_with('/') {
        let problem = format!("{sub:?} is not relative to the image's root");
        return Err(InvalidField::invalid(field("image_sub_path"), problem));
    }
    let sub_path = normalised(&field("image_sub_path"), sub)?;
    Ok(MountSource::Image { image, sub_path })
}

fn mount_flags(field: &str, options: &[String]) -> Checked<Vec<MountFlag>> {
    let known = |option: &String| {
        MountFlag::ALL
            .into_iter()
            .find(|flag| flag.name() == option)
            .ok_or_else(|| {
                let problem = format!("{option:?} is none of noexec, nodev and nosuid");
                InvalidField::unsupported(field, problem)
            })
    };
    options.iter().map(known).collect()
}

/// Two mounts on one path would hide each other.
fn distinct(mounts: Vec<Mount>) -> Checked<Vec<Mount>> {
    let mut seen = std::collections::HashSet::new();
    for (n, mount) in mounts.iter().enumerate() {
        if !seen.insert(&mount.container_path) {
            let problem = format!("{} is mounted twice", mount.container_path);
            return Err(InvalidField::invalid(
                format!("config.mounts[{n}].container_path"),
                problem,
            ));
        }
    }
    Ok(mounts)
}

fn device(n: usize, device: v1::Device) -> Checked<Device> {
    let v1::Device {
        container_path,
        host_path,
        permissions,
    } = device;
    let field = |name: &str| format!("config.devices[{n}].{name}");
    if permissions.is_empty() || permissions.chars().any(|c| !"rwm".contains(c)) {
        let problem = format!("{permissions:?} is not one or more of 'r', 'w' and 'm'");
        return Err(InvalidField::invalid(field("permissions"), problem));
    }
    Ok(Device {
        container_path: absolute(&field("container_path"), &container_path)?,
        host_path: absolute(&field("host_path"), &host_path)?,
        permissions,
    })
}

/// Turns limits into the domain's; of a container's configuration and of UpdateContainerResources alike.
///
/// # Errors
///
/// [`InvalidField`], with names below `field`.
pub(crate) fn resources(field: &str, limits: v1::LinuxContainerResources) -> Checked<Resources> {
    let v1::LinuxContainerResources {
        cpu_period,
        cpu_quota,
        cpu_shares,
        memory_limit_in_bytes,
        oom_score_adj,
        cpuset_cpus,
        cpuset_mems,
        hugepage_limits,
        unified,
        memory_swap_limit_in_bytes,
    } = limits;
    let at = |name: &str| format!("{field}.{name}");
    let positive = |name: &str, value: i64| match u64::try_from(value) {
        Ok(value) => Ok(Some(value).filter(|v| *v > 0)),
        Err(_) => Err(InvalidField::invalid(
            at(name),
            format!("{value} is negative"),
        )),
    };
    let limit = |name: &str, value: i64| match value {
        ..=-2 => Err(InvalidField::invalid(
            at(name),
            format!("{value} is less than -1 (unlimited)"),
        )),
        0 => Ok(None),
        _ => Ok(Some(value)),
    };
    let memory_bytes = limit("memory_limit_in_bytes", memory_limit_in_bytes)?;
    let memory_swap_bytes = limit("memory_swap_limit_in_bytes", memory_swap_limit_in_bytes)?;
    if let (Some(memory), Some(swap @ 1..)) = (memory_bytes, memory_swap_bytes)
        && (memory < 0 || swap < memory)
    {
        let problem =
            "counts memory and swap together, so it cannot be less than memory_limit_in_bytes";
        return Err(InvalidField::invalid(
            at("memory_swap_limit_in_bytes"),
            problem,
        ));
    }
    let oom_score_adj = i32::try_from(oom_score_adj)
        .ok()
        .filter(|adj| (-1000..=1000).contains(adj))
        .ok_or_else(|| {
            InvalidField::invalid(at("oom_score_adj"), "is not between -1000 and 1000")
        })?;
    for (name, list) in [("cpuset_cpus", &cpuset_cpus), ("cpuset_mems", &cpuset_mems)] {
        if list
            .chars()
            .any(|c| !c.is_ascii_digit() && c != '-' && c != ',')
        {
            let problem = format!("{list:?} is not a list such as 0-2,7");
            return Err(InvalidField::invalid(at(name), problem));
        }
    }
    for file in unified.keys() {
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !file.contains('.') || file.starts_with('.') || !file.chars().all(legal) {
            let problem = format!("{file:?} is not a file of a cgroup such as memory.high");
            return Err(InvalidField::invalid(at("unified"), problem));
        }
    }
    Ok(Resources {
        cpu_period_us: positive("cpu_period", cpu_period)?,
        cpu_quota_us: limit("cpu_quota", cpu_quota)?,
        cpu_shares: positive("cpu_shares", cpu_shares)?,
        memory_bytes,
        memory_swap_bytes,
        oom_score_adj,
        cpuset_cpus,
        cpuset_mems,
        hugepages: hugepages(&at("hugepage_limits"), hugepage_limits)?,
        unified: unified.into_iter().collect(),
    })
}

fn hugepages(field: &str, limits: Vec<v1::HugepageLimit>) -> Checked<Vec<HugepageLimit>> {
    let convert = |(n, limit): (usize, v1::HugepageLimit)| {
        let v1::HugepageLimit { page_size, limit } = limit;
        let digits = page_size.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || !["KB", "MB", "GB"].contains(&&page_size[digits..]) {
            let problem = format!("{page_size:?} is not a size such as 2MB");
            return Err(InvalidField::invalid(
                format!("{field}[{n}].page_size"),
                problem,
            ));
        }
        if i64::try_from(limit).is_err() {
            let problem = format!("{limit} does not fit the OCI configuration");
            return Err(InvalidField::invalid(
                format!("{field}[{n}].limit"),
                problem,
            ));
        }
        Ok(HugepageLimit { page_size, limit })
    };
    limits.into_iter().enumerate().map(convert).collect()
}

fn signal(number: i32) -> Checked<Option<Signal>> {
    const FIELD: &str = "config.stop_signal";
    let signal = v1::Signal::try_from(number).map_err(|_| unknown_number(FIELD, number))?;
    if signal == v1::Signal::RuntimeDefault {
        return Ok(None);
    }
    let name = oci_signal_name(signal);
    let parsed = Signal::parse(&name);
    parsed
        .map(Some)
        .ok_or_else(|| unknown_number(FIELD, number))
}

/// `SIGRTMIN+1` for `SIGNAL_SIGRTMINPLUS1`.
fn oci_signal_name(signal: v1::Signal) -> String {
    let name = signal.as_str_name();
    let name = name.strip_prefix("SIGNAL_").unwrap_or(name);
    name.replace("PLUS", "+").replace("MINUS", "-")
}

/// CRI's number for a signal; `SIGNAL_RUNTIME_DEFAULT` for one that CRI has no name for.
pub(crate) fn cri_signal(signal: Signal) -> v1::Signal {
    (1..=i32::from(u8::MAX))
        .map_while(|number| v1::Signal::try_from(number).ok())
        .find(|known| Signal::parse(&oci_signal_name(*known)) == Some(signal))
        .unwrap_or(v1::Signal::RuntimeDefault)
}

pub(super) fn unknown_number(field: &str, number: i32) -> InvalidField {
    InvalidField::unsupported(
        field,
        format!("{number} is a value newer than this nexcage"),
    )
}

#[cfg(test)]
mod tests;
