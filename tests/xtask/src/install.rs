//! What the tests and benchmarks need beside Rust: installed when we are root, named when we are not.

use std::path::Path;
use std::process::{Command, Stdio};

use rookery_tests::server::find_program;

use crate::suite::root;

/// (program that shows it is there, Debian package)
const FOR_TESTS: &[(&str, &str)] = &[
    ("python3", "python3"),
    ("tmux", "tmux"),
    ("profanity", "profanity"),
    ("go-sendxmpp", "go-sendxmpp"),
    ("haproxy", "haproxy"),
    ("biboumi", "biboumi"),
    ("ngircd", "ngircd"),
    ("java", "openjdk-17-jre-headless"),
    ("mvn", "maven"),
    ("pebble", "pebble"),
];

/// What federation is tested with: the other servers, a DNS server, and what tells a program of a DNS server of the test's own.
const FOR_FEDERATION: &[(&str, &str)] = &[
    ("prosody", "prosody"),
    ("lunbound.so", "lua-unbound"),
    ("ejabberdctl", "ejabberd"),
    ("nsd", "nsd"),
    ("ldns-signzone", "ldnsutils"),
    ("libnss_wrapper.so", "libnss-wrapper"),
];

/// For tests and measurements of federation.
pub(crate) fn for_federation() {
    let libraries = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let there = |file: &str| Path::new(&libraries).join(file).exists();
    let mut wanted = FOR_FEDERATION.to_vec();
    wanted.retain(|(program, _)| match *program {
        "lunbound.so" => !there("lua/5.4/lunbound.so"),
        "libnss_wrapper.so" => !there("libnss_wrapper.so"),
        _ => true,
    });
    apt(&wanted);
}

/// For nodes behind a load balancer.
pub(crate) fn for_chaos() {
    apt(&[("haproxy", "haproxy")]);
}

/// For the interop tests: Debian's programs, and under target/ PyPI's slixmpp and slidge, and Maven Central's Smack.
pub(crate) fn for_tests() {
    apt(FOR_TESTS);
    for_federation();
    if !crate::fdb::libclang() {
        apt_install(&["libclang-dev"]);
    }
    slixmpp();
    slidge();
    smack();
}

/// Smack's integration tests and what they depend on, as jars. The copy of pom.xml beside them says which they are.
fn smack() {
    let pom = root().join("tests/interop/smack/pom.xml");
    let folder = root().join("target/interop-smack");
    let (wanted, there) = (std::fs::read(&pom), std::fs::read(folder.join("pom.xml")));
    if wanted.as_ref().ok() == there.as_ref().ok() {
        return;
    }
    let _ = std::fs::remove_dir_all(&folder);
    println!("copying Smack's integration tests from Maven Central to target/interop-smack");
    let (pom, output) = (pom.display(), folder.display());
    let arguments = format!(
        "-B -q -f {pom} dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory={output}"
    );
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let done = works(Path::new("mvn"), &arguments);
    if !done || wanted.and_then(|pom| std::fs::write(folder.join("pom.xml"), pom)).is_err() {
        println!("to install: mvn {}", arguments.join(" "));
        println!("skipped: Smack's integration tests");
    }
}

fn slixmpp() {
    venv("interop-venv", "slixmpp", "slixmpp");
}

/// A gateway, with the slixmpp that it wants.
fn slidge() {
    venv("interop-slidge", "slidge", "slidge==0.4.2");
}

/// A folder under target/ with a package of PyPI, which shows that it is there by its module.
fn venv(folder: &str, module: &str, package: &str) {
    let venv = root().join("target").join(folder);
    let python = venv.join("bin/python");
    if works(&python, &["-c", &format!("import {module}")]) {
        return;
    }
    if !python.is_file() && !works(Path::new("python3"), &["-m", "venv", &venv.to_string_lossy()]) {
        apt_install(&["python3-venv"]);
        works(Path::new("python3"), &["-m", "venv", "--clear", &venv.to_string_lossy()]);
    }
    println!("installing {package} from PyPI into target/{folder}");
    if !works(&python, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]) {
        println!("to install: python3 -m venv target/{folder} && target/{folder}/bin/pip install {package}");
        println!("skipped: interop tests with {module}");
    }
}

/// For the benchmark: the peers and their database.
pub(crate) fn for_bench(servers: &[String]) {
    let mut wanted = Vec::new();
    for server in servers {
        match server.as_str() {
            "prosody" => wanted.extend([("prosody", "prosody"), ("lua-dbi", "lua-dbi-postgresql")]),
            "ejabberd" => wanted.extend([("ejabberdctl", "ejabberd"), ("p1_pgsql", "erlang-p1-pgsql")]),
            _ => {}
        }
    }
    if !wanted.is_empty() {
        wanted.push(("initdb", "postgresql"));
    }
    // A Lua module and an Erlang one are no programs in PATH: look for their files.
    let erlang = std::fs::read_dir("/usr/lib/erlang/lib").into_iter().flatten().flatten();
    let pgsql = erlang.into_iter().any(|e| e.file_name().to_string_lossy().starts_with("p1_pgsql"));
    wanted.retain(|(program, _)| match *program {
        "lua-dbi" => !Path::new("/usr/share/lua/5.4/DBI.lua").exists(),
        "p1_pgsql" => !pgsql,
        _ => true,
    });
    apt(&wanted);
}

fn apt(wanted: &[(&str, &str)]) {
    let missing: Vec<&str> =
        wanted.iter().filter(|(program, _)| find_program(program).is_none()).map(|(_, p)| *p).collect();
    if !missing.is_empty() {
        apt_install(&missing);
    }
}

fn apt_install(packages: &[&str]) {
    let list = packages.join(" ");
    if !we_are_root() || find_program("apt-get").is_none() {
        println!("to install, as root: apt-get install {list}");
        println!("skipped: what needs {list}");
        return;
    }
    println!("installing {list} from Debian");
    let apt = |arguments: &[&str]| {
        Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    let install: Vec<&str> =
        ["install", "-y", "-qq", "--no-install-recommends"].iter().chain(packages).copied().collect();
    // The package lists may be missing or old: then a second try with new ones.
    let done = apt(&install) || (apt(&["update", "-qq"]) && apt(&install));
    if !done {
        println!("skipped: {list} could not be installed");
    }
}

fn we_are_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|o| o.stdout.trim_ascii() == b"0")
}

fn works(program: &Path, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}
