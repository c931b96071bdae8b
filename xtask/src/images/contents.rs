//! What is in the images.

use std::fs;

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};

use super::debian::Unpacked;
use super::layer::Layer;
use crate::run::{command, output};

/// Users and groups of the base image; critest asks for `nobody` and `www-data` by name.
const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/:/bin/false
";
const GROUP: &str = "\
root:x:0:
daemon:x:1:
www-data:x:33:
users:x:100:
nogroup:x:65534:
";

/// `id` of `www-data` in [`PASSWD`].
const WWW_DATA: u64 = 33;

/// Debian's busybox is built without these two applets, which critest runs.
/// With one name, `pgrep` does what `pidof` does.
const PGREP: &str = "#!/bin/sh\nexec pidof \"$1\"\n";
const IPCS: &str = "#!/bin/sh\ncat /proc/sysvipc/shm\n";

/// Tells which user it runs as after exec: root where its setuid bit counts.
const NONEWPRIVS: &str = r#"
#include <stdio.h>
#include <unistd.h>
int main(void) {
    printf("Effective uid: %d\n", (int)geteuid());
    return 0;
}
"#;

/// Waits for ever, and ends at once when asked to.
const PAUSE: &str = r#"
#include <signal.h>
#include <unistd.h>
static void end(int signal) { (void)signal; _exit(0); }
int main(void) {
    signal(SIGTERM, end);
    signal(SIGINT, end);
    for (;;) pause();
}
"#;

/// The programs that images are made of.
pub(super) struct Programs {
    packages: Unpacked,
    nonewprivs: Vec<u8>,
    pause: Vec<u8>,
}

impl Programs {
    /// Fetches and compiles them all, below `work`.
    pub(super) fn gather(work: &Utf8Path) -> anyhow::Result<Self> {
        let packages = Unpacked::fetch(work, &["busybox", "nginx", "nginx-common", "apache2-bin"])?;
        Ok(Self {
            packages,
            nonewprivs: compile(work, "nonewprivs", NONEWPRIVS)?,
            pause: compile(work, "pause", PAUSE)?,
        })
    }

    /// The base of most images: a shell and the usual small programs. Not Debian's busybox-static: its
    /// shell runs applets without looking at files, so that a masked `/bin/ls` still lists.
    pub(super) fn busybox_layer(&self) -> anyhow::Result<Layer> {
        let program = self.packages.path(&["bin/busybox", "usr/bin/busybox"])?;
        let mut layer = Layer::default();
        let applets = output(command(&program).arg("--list"))?;
        // Hard links, as in the usual busybox image: what is mounted over one applet must not hide all.
        for applet in applets.lines().filter(|applet| *applet != "busybox") {
            layer.hard_link(format!("bin/{applet}"), "bin/busybox");
        }
        let binary = fs::read(&program).with_context(|| format!("cannot read {program}"))?;
        layer.file("bin/busybox", 0o755, binary);
        self.packages.add_libraries(&program, &mut layer)?;
        layer.file("bin/pgrep", 0o755, PGREP);
        layer.file("bin/ipcs", 0o755, IPCS);
        layer.file("etc/passwd", 0o644, PASSWD);
        layer.file("etc/group", 0o644, GROUP);
        layer.directory("root", 0o700);
        layer.directory("tmp", 0o1777);
        layer.directory("var/run", 0o755);
        layer.directory("var/tmp", 0o1777);
        layer.directory_of("var/www", 0o755, WWW_DATA);
        for mount_point in ["dev", "proc", "sys"] {
            layer.directory(mount_point, 0o755);
        }
        Ok(layer)
    }

    /// nginx with its libraries; [`nginx`] has the configuration.
    pub(super) fn nginx_layer(&self) -> anyhow::Result<Layer> {
        let mut layer = Layer::default();
        let program = self.packages.path(&["usr/sbin/nginx"])?;
        layer.file(
            "usr/sbin/nginx",
            0o755,
            self.packages.read(&["usr/sbin/nginx"])?,
        );
        self.packages.add_libraries(&program, &mut layer)?;
        layer.file(
            "etc/nginx/mime.types",
            0o644,
            self.packages.read(&["etc/nginx/mime.types"])?,
        );
        layer.directory("var/log/nginx", 0o755);
        layer.directory_of("var/lib/nginx", 0o700, WWW_DATA);
        layer.file("usr/share/nginx/html/index.html", 0o644, "<h1>nginx</h1>\n");
        Ok(layer)
    }

    /// Apache under the name `httpd`, with its libraries and the few modules that [`apache`] loads.
    pub(super) fn apache_layer(&self) -> anyhow::Result<Layer> {
        let mut layer = Layer::default();
        let program = self.packages.path(&["usr/sbin/apache2"])?;
        layer.file(
            "usr/sbin/httpd",
            0o755,
            self.packages.read(&["usr/sbin/apache2"])?,
        );
        self.packages.add_libraries(&program, &mut layer)?;
        for module in APACHE_MODULES {
            let path = format!("usr/lib/apache2/modules/mod_{module}.so");
            layer.file(path.clone(), 0o644, self.packages.read(&[&path])?);
        }
        layer.file("var/www/html/index.html", 0o644, "<h1>It works!</h1>\n");
        Ok(layer)
    }

    /// One program, setuid root.
    pub(super) fn nonewprivs_layer(&self) -> Layer {
        let mut layer = Layer::default();
        layer.file("nonewprivs", 0o4755, self.nonewprivs.as_slice());
        layer
    }

    /// One program.
    pub(super) fn pause_layer(&self) -> Layer {
        let mut layer = Layer::default();
        layer.file("pause", 0o755, self.pause.as_slice());
        layer
    }
}

/// A layer that configures nginx to listen on `port`.
///
/// critest reads the pid file and looks for "master process" in the command line.
pub(super) fn nginx(port: u16) -> Layer {
    let config = format!(
        "user www-data;
worker_processes 1;
pid /var/run/nginx.pid;
error_log /proc/self/fd/2 notice;
events {{ worker_connections 64; }}
http {{
    include /etc/nginx/mime.types;
    access_log /proc/self/fd/1;
    server {{
        listen {port};
        root /usr/share/nginx/html;
    }}
}}
"
    );
    let mut layer = Layer::default();
    layer.file("etc/nginx/nginx.conf", 0o644, config);
    layer
}

/// Debian builds the rest that is needed (`log_config`, `unixd`) into the program.
const APACHE_MODULES: [&str; 4] = ["mpm_event", "authz_core", "dir", "mime"];

/// A layer that configures Apache. It says its name, `httpd`, in its first log lines, which critest
/// looks for.
pub(super) fn apache() -> Layer {
    let mut config = String::from("ServerRoot /usr/lib/apache2\n");
    for module in APACHE_MODULES {
        config.push_str(&format!(
            "LoadModule {module}_module modules/mod_{module}.so\n"
        ));
    }
    config.push_str(
        "Listen 80
User www-data
Group www-data
PidFile /var/run/httpd.pid
DefaultRuntimeDir /var/run
DocumentRoot /var/www/html
DirectoryIndex index.html
TypesConfig /etc/apache2/mime.types
ErrorLog /proc/self/fd/2
CustomLog /proc/self/fd/1 \"%h %t \\\"%r\\\" %>s %b\"
LogLevel notice
",
    );
    let mut layer = Layer::default();
    layer.file("etc/apache2/apache2.conf", 0o644, config);
    layer.file("etc/apache2/mime.types", 0o644, "text/html html\n");
    layer
}

/// A layer that adds lines to the base image's users and groups.
pub(super) fn accounts(users: &str, groups: &str) -> Layer {
    let mut layer = Layer::default();
    layer.file("etc/passwd", 0o644, format!("{PASSWD}{users}"));
    layer.file("etc/group", 0o644, format!("{GROUP}{groups}"));
    layer
}

/// Compiles a program that needs no libraries.
fn compile(work: &Utf8Path, name: &str, source: &str) -> anyhow::Result<Vec<u8>> {
    let source_file: Utf8PathBuf = work.join(format!("{name}.c"));
    let binary = work.join(name);
    fs::write(&source_file, source).with_context(|| format!("cannot write {source_file}"))?;
    output(command("gcc").args([
        "-static",
        "-Os",
        "-s",
        "-o",
        binary.as_str(),
        source_file.as_str(),
    ]))?;
    fs::read(&binary).with_context(|| format!("cannot read {binary}"))
}
