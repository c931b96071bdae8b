//! `rootfs` and `mpN`: what is mounted into a container.

use super::property::{Kind, Property, parse};

/// A mount point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// `storage:name`, a directory or a device.
    pub source: Source,
    /// Where in the container; `/` for the root.
    pub at: String,
    /// Whether it is mounted read-only.
    pub read_only: bool,
    /// Whether the files keep their ids, or which are mapped to which.
    pub idmap: Option<IdMap>,
    /// In bytes, for information.
    pub size: Option<u64>,
}

/// Where a mount point comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `<storage>:<volume>`.
    Volume(String, String),
    /// A directory of the host.
    Bind(String),
    /// A device of the host.
    Device(String),
}

/// The option `idmap` of pve-container 6.1.6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdMap {
    /// Ids on disk are those in the container.
    Passthrough,
    /// `u:<container>:<disk>:<count>;g:…`.
    Ranges(Vec<(char, u32, u32, u32)>),
}

impl Source {
    /// What Proxmox calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Volume(..) => "volume",
            Self::Bind(_) => "bind",
            Self::Device(_) => "device",
        }
    }
}

const PATH: Kind = Kind::Like(
    is_path,
    "invalid format - contains illegal character sequences",
);

/// Those of `rootfs`.
pub(super) const ROOTFS: [Property; 9] = [
    Property::required("volume", PATH),
    Property::new("size", Kind::pattern(|text| size(text).is_some())),
    Property::new("acl", Kind::Bool),
    Property::new("mountoptions", Kind::pattern(is_options)),
    Property::new("idmap", Kind::pattern(|text| idmap(text).is_some())),
    Property::new("ro", Kind::Bool),
    Property::new("quota", Kind::Bool),
    Property::new("replicate", Kind::Bool),
    Property::new("shared", Kind::Bool),
];

/// Those of `mpN` beyond that.
pub(super) const MOUNT_POINT: [Property; 3] = [
    Property::required("mp", PATH),
    Property::new("backup", Kind::Bool),
    Property::new("keepattrs", Kind::Bool),
];

impl Volume {
    /// Reads the value of `rootfs` or `mpN`.
    ///
    /// # Errors
    ///
    /// Proxmox's words.
    pub fn parse(key: &str, text: &str) -> Result<Self, String> {
        let mut properties = ROOTFS.to_vec();
        if key != "rootfs" {
            properties.extend(MOUNT_POINT);
        }
        let values = parse(text, &properties, Some("volume"))?;
        let source = source(values.get("volume").map_or("", String::as_str))?;
        let at = values.get("mp").map_or("/", String::as_str);
        Ok(Self {
            source,
            at: at.to_owned(),
            read_only: values.get("ro").is_some_and(|ro| ro == "1"),
            idmap: values.get("idmap").and_then(|text| idmap(text)),
            size: values.get("size").and_then(|text| size(text)),
        })
    }
}

fn source(volume: &str) -> Result<Source, String> {
    if volume.starts_with("/dev/") {
        return Ok(Source::Device(volume.to_owned()));
    }
    if volume.starts_with('/') {
        return Ok(Source::Bind(volume.to_owned()));
    }
    let (storage, name) = volume
        .split_once(':')
        .ok_or_else(|| format!("unable to parse volume ID '{volume}'"))?;
    Ok(Source::Volume(storage.to_owned(), name.to_owned()))
}

fn is_path(path: &str) -> bool {
    !path.starts_with("../")
        && !path
            .split('/')
            .skip(1)
            .any(|part| matches!(part, "." | ".."))
}

fn is_options(text: &str) -> bool {
    let known = [
        "discard", "lazytime", "noatime", "nodev", "noexec", "nosuid",
    ];
    text.split(';').all(|option| known.contains(&option))
}

/// `8G`, `64M`, `1T`, or bytes.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(['K', 'M', 'G', 'T']);
    let unit = match &text[digits.len()..] {
        "" => 1.0,
        "K" => 1024.0,
        "M" => 1024.0 * 1024.0,
        "G" => 1024.0 * 1024.0 * 1024.0,
        "T" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number: f64 = plain.then(|| digits.parse().ok())??;
    let bytes = number * unit;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "made of digits, and checked to fit"
    )]
    let whole = bytes as u64;
    (bytes < 1e18).then_some(whole)
}

fn idmap(text: &str) -> Option<IdMap> {
    if text == "passthrough" {
        return Some(IdMap::Passthrough);
    }
    let range = |text: &str| {
        let parts: Vec<_> = text.split(':').collect();
        let [kind, container, disk, count] = parts[..] else {
            return None;
        };
        let kind = match kind {
            "u" => 'u',
            "g" => 'g',
            _ => return None,
        };
        let count = count.parse().ok().filter(|count| *count > 0)?;
        Some((kind, container.parse().ok()?, disk.parse().ok()?, count))
    };
    let ranges = text.split(';').map(range).collect::<Option<_>>()?;
    Some(IdMap::Ranges(ranges))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_file_systems() {
        let text = "/usr/lib/nexcage/sandbox,ro=1,idmap=passthrough";
        let root = Volume::parse("rootfs", text).unwrap();
        assert_eq!(root.source, Source::Bind("/usr/lib/nexcage/sandbox".into()));
        assert!(root.read_only);
        assert_eq!(root.idmap, Some(IdMap::Passthrough));
        let root = Volume::parse("rootfs", "nex:subvol-100-nexroot,size=64M").unwrap();
        assert_eq!(
            root.source,
            Source::Volume("nex".into(), "subvol-100-nexroot".into())
        );
        assert_eq!(root.size, Some(64 << 20));
    }

    #[test]
    fn mount_points() {
        let mount = Volume::parse("mp0", "/srv,mp=/mnt/v1,idmap=u:0:1000:1;g:5:50:5").unwrap();
        assert_eq!(mount.at, "/mnt/v1");
        let ranges = vec![('u', 0, 1000, 1), ('g', 5, 50, 5)];
        assert_eq!(mount.idmap, Some(IdMap::Ranges(ranges)));
        for (key, text) in [
            ("mp0", "/srv"),
            ("rootfs", "/srv,mp=/x"),
            ("rootfs", "/srv/../etc"),
            ("rootfs", "ro=1"),
            ("rootfs", "/srv,ro=maybe"),
            ("rootfs", "/srv,idmap=u:0:0:0"),
            ("rootfs", "/srv,/other"),
            ("rootfs", "nonsense"),
            ("rootfs", "/srv,size=big"),
        ] {
            assert!(Volume::parse(key, text).is_err(), "{key}: {text}");
        }
    }
}
