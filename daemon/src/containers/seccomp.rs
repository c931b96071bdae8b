//! System call filters: from the files that administrators write to what an OCI runtime takes.
//!
//! Two formats are in use. An OCI filter is complete. The format of Docker, podman and CRI-O, in which Debian ships the
//! default, has rules that hold only with certain capabilities, on certain architectures or from some kernel on;
//! [`Profile::resolve`] picks those that apply. One parser reads both, because one is the other without conditions.
//!
//! A profile with a field that is not known is refused: a misspelt one would silently be no filter at all.

use std::fs::File;
use std::io::Read;

use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
    LinuxSyscallBuilder,
};
use serde::Deserialize;

/// Where Debian's `golang-github-containers-common` installs the default filter.
pub(crate) const DEFAULT_PATH: &str = "/usr/share/containers/seccomp.json";

/// Largest profile that is read, in bytes. The default one has 25 kB.
const FILE_MAX: u64 = 4 << 20;

/// A profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeccompError {
    /// There is no such file.
    #[error("there is no seccomp profile at {path}{}", hint(path))]
    NotFound {
        /// Where it should be.
        path: Utf8PathBuf,
    },
    /// It is not a regular file, or larger than any profile.
    #[error("{path} is not a seccomp profile: not a regular file of at most {FILE_MAX} bytes")]
    NotAProfile {
        /// What was given.
        path: Utf8PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read the seccomp profile {path}")]
    Read {
        /// Which file.
        path: Utf8PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// It is not JSON of the right form.
    #[error("cannot understand the seccomp profile {path}")]
    Parse {
        /// Which file.
        path: Utf8PathBuf,
        /// Where and why.
        #[source]
        source: ParseError,
    },
}

/// The default profile's package, for whoever lacks it.
fn hint(path: &Utf8Path) -> &'static str {
    if path == DEFAULT_PATH {
        "; on Debian: apt install golang-github-containers-common"
    } else {
        ""
    }
}

/// A text is not a profile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParseError {
    /// Not JSON, or not of this form.
    #[error("{at}")]
    Json {
        /// Path of the field.
        at: String,
        /// What is wrong there.
        #[source]
        source: serde_json::Error,
    },
    /// Fields that contradict each other or say too little.
    #[error("{at}: {problem}")]
    Field {
        /// Path of the field.
        at: String,
        /// What is wrong there.
        problem: &'static str,
    },
}

/// What a profile is resolved for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The machine's architecture as libseccomp names it.
    pub(crate) arch: Arch,
    /// Major and minor version of the kernel.
    pub(crate) kernel: (u32, u32),
}

/// The architecture's name in libseccomp, and in the conditions of a profile (those of Go).
const ARCHITECTURES: &[(&str, Arch, &str)] = &[
    ("x86_64", Arch::ScmpArchX86_64, "amd64"),
    ("aarch64", Arch::ScmpArchAarch64, "arm64"),
    ("arm", Arch::ScmpArchArm, "arm"),
    ("x86", Arch::ScmpArchX86, "x86"),
    ("powerpc64", Arch::ScmpArchPpc64le, "ppc64le"),
    ("s390x", Arch::ScmpArchS390x, "s390x"),
    ("riscv64", Arch::ScmpArchRiscv64, "riscv64"),
    ("loongarch64", Arch::ScmpArchLoongarch64, "loong64"),
];

impl Target {
    /// The machine the daemon runs on.
    pub(crate) fn this_machine() -> Self {
        let arch = ARCHITECTURES
            .iter()
            .find(|(rust, ..)| *rust == std::env::consts::ARCH)
            .map_or(Arch::ScmpArchNative, |(_, arch, _)| *arch);
        let uname = rustix::system::uname();
        let kernel = kernel_version(&uname.release().to_string_lossy());
        Self {
            arch,
            kernel: kernel.unwrap_or_default(),
        }
    }

    fn go_arch(&self) -> &'static str {
        let found = ARCHITECTURES.iter().find(|(_, arch, _)| *arch == self.arch);
        found.map_or("", |(.., go)| go)
    }
}

/// `6.12` of `6.12.48+deb13-amd64`.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A profile as a file has it. Complete and consistent, once parsed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    /// Name of the number above.
    default_errno: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<Arch>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<Utf8PathBuf>,
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArchMap {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    /// Docker's old form of `names`.
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    errno_ret: Option<u32>,
    /// Name of the number above.
    errno: Option<String>,
    #[serde(default, rename = "comment")]
    _comment: Option<String>,
    #[serde(default)]
    includes: Option<Conditions>,
    #[serde(default)]
    excludes: Option<Conditions>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: LinuxSeccompOperator,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Conditions {
    #[serde(default)]
    caps: Option<Vec<Capability>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Reads a profile. Blocks.
///
/// # Errors
///
/// [`SeccompError`]; a missing file is `NotFound`.
pub(crate) fn load(path: &Utf8Path) -> Result<Profile, SeccompError> {
    let fail = |source| SeccompError::Read {
        path: path.to_owned(),
        source,
    };
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(SeccompError::NotFound {
                path: path.to_owned(),
            });
        }
        Err(e) => return Err(fail(e)),
    };
    if !meta.is_file() || meta.len() > FILE_MAX {
        return Err(SeccompError::NotAProfile {
            path: path.to_owned(),
        });
    }
    let mut text = Vec::new();
    let file = File::open(path).map_err(fail)?;
    file.take(FILE_MAX).read_to_end(&mut text).map_err(fail)?;
    Profile::parse(&text).map_err(|source| SeccompError::Parse {
        path: path.to_owned(),
        source,
    })
}

impl Profile {
    /// Reads the text of a profile.
    ///
    /// # Errors
    ///
    /// [`ParseError`] names the field.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, ParseError> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let profile: Self =
            serde_path_to_error::deserialize(&mut json).map_err(|e| ParseError::Json {
                at: e.path().to_string(),
                source: e.into_inner(),
            })?;
        let at_end = json.end();
        at_end.map_err(|source| ParseError::Json {
            at: "end of file".into(),
            source,
        })?;
        profile.check()?;
        Ok(profile)
    }

    fn check(&self) -> Result<(), ParseError> {
        let fail = |at: String, problem| Err(ParseError::Field { at, problem });
        if self.architectures.is_some() && self.arch_map.is_some() {
            return fail("archMap".into(), "cannot stand beside architectures");
        }
        if self.default_errno.is_some() && self.default_errno_ret.is_none() {
            return fail("defaultErrno".into(), "needs its number in defaultErrnoRet");
        }
        for (n, rule) in self.syscalls.iter().flatten().enumerate() {
            let at = |name: &str| format!("syscalls[{n}].{name}");
            if rule.name.is_some() == rule.names.is_some() {
                return fail(at("names"), "give either names or name");
            }
            if rule.errno.is_some() && rule.errno_ret.is_none() {
                return fail(at("errno"), "needs its number in errnoRet");
            }
            if rule.args.iter().flatten().any(|arg| arg.index > 5) {
                return fail(at("args"), "a system call has arguments 0 to 5");
            }
            for conditions in rule.includes.iter().chain(&rule.excludes) {
                if conditions
                    .min_kernel
                    .as_deref()
                    .is_some_and(|v| kernel_version(v).is_none())
                {
                    return fail(at("minKernel"), "is not a version such as 4.8");
                }
            }
        }
        Ok(())
    }

    /// The filter for a container with `capabilities` on `target`.
    ///
    /// # Errors
    ///
    /// What the OCI types refuse.
    pub(crate) fn resolve(
        &self,
        target: Target,
        capabilities: &[Capability],
    ) -> Result<LinuxSeccomp, OciSpecError> {
        let rules = self.syscalls.iter().flatten();
        let syscalls = rules
            .filter(|rule| rule.applies(target, capabilities))
            .map(Rule::resolve)
            .collect::<Result<Vec<_>, _>>()?;
        let mut filter = LinuxSeccompBuilder::default()
            .default_action(self.default_action)
            .syscalls(syscalls);
        if let Some(errno) = self.default_errno_ret {
            filter = filter.default_errno_ret(errno);
        }
        if let Some(architectures) = self.architectures_for(target) {
            filter = filter.architectures(architectures);
        }
        if let Some(flags) = &self.flags {
            filter = filter.flags(flags.clone());
        }
        if let Some(path) = &self.listener_path {
            filter = filter.listener_path(path.clone());
        }
        if let Some(metadata) = &self.listener_metadata {
            filter = filter.listener_metadata(metadata.clone());
        }
        filter.build()
    }

    /// The machine's architecture and those its kernel runs too; `None` leaves it to the OCI runtime.
    fn architectures_for(&self, target: Target) -> Option<Vec<Arch>> {
        if self.architectures.is_some() {
            return self.architectures.clone();
        }
        let entry = self
            .arch_map
            .iter()
            .flatten()
            .find(|map| map.architecture == target.arch)?;
        let mut all = vec![entry.architecture];
        all.extend(entry.sub_architectures.iter().flatten());
        Some(all)
    }
}

impl Rule {
    fn applies(&self, target: Target, capabilities: &[Capability]) -> bool {
        let included = self.includes.as_ref().is_none_or(|includes| {
            includes.arch(target).unwrap_or(true)
                && includes.kernel(target).unwrap_or(true)
                && includes
                    .caps
                    .iter()
                    .flatten()
                    .all(|cap| capabilities.contains(cap))
        });
        let excluded = self.excludes.as_ref().is_some_and(|excludes| {
            excludes.arch(target).unwrap_or(false)
                || excludes.kernel(target).unwrap_or(false)
                || excludes
                    .caps
                    .iter()
                    .flatten()
                    .any(|cap| capabilities.contains(cap))
        });
        included && !excluded
    }

    fn resolve(&self) -> Result<LinuxSyscall, OciSpecError> {
        let names = self.names.iter().flatten().chain(&self.name);
        let mut call = LinuxSyscallBuilder::default()
            .names(names.cloned().collect::<Vec<_>>())
            .action(self.action);
        if let Some(errno) = self.errno_ret {
            call = call.errno_ret(errno);
        }
        let args = self.args.iter().flatten().map(Argument::resolve);
        let args = args.collect::<Result<Vec<_>, _>>()?;
        if !args.is_empty() {
            call = call.args(args);
        }
        call.build()
    }
}

impl Argument {
    fn resolve(&self) -> Result<LinuxSeccompArg, OciSpecError> {
        LinuxSeccompArgBuilder::default()
            .index(usize::from(self.index))
            .value(self.value)
            .value_two(self.value_two)
            .op(self.op)
            .build()
    }
}

impl Conditions {
    /// Whether the machine's architecture is listed; `None` if none is.
    fn arch(&self, target: Target) -> Option<bool> {
        let arches = self.arches.as_deref().filter(|arches| !arches.is_empty())?;
        Some(arches.iter().any(|arch| arch == target.go_arch()))
    }

    /// Whether the machine's kernel is new enough; `None` if it does not matter.
    fn kernel(&self, target: Target) -> Option<bool> {
        Some(target.kernel >= kernel_version(self.min_kernel.as_deref()?)?)
    }
}

#[cfg(test)]
#[path = "seccomp_tests.rs"]
mod tests;
