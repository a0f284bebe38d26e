//! Finds libdpdk, compiles the C shim against its headers and generates the bindings.

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Oldest release whose API the shim is written to (`rte_dev_name`, `rte_bus_name`).
const OLDEST: &str = "22.11";

/// Exported functions Rust calls directly, because plain numbers and pointers are all they take.
const FUNCTIONS: &[&str] = &[
    "rte_version",
    "rte_eal_init",
    "rte_eal_cleanup",
    "rte_get_tsc_hz",
    "rte_thread_register",
    "rte_thread_unregister",
    "rte_pktmbuf_pool_create",
    "rte_pktmbuf_free_bulk",
    "rte_mempool_free",
    "rte_mempool_avail_count",
    "rte_mempool_in_use_count",
    "rte_dev_probe",
    "rte_eal_hotplug_remove",
    "rte_eth_find_next_owned_by",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_dev_close",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_set_mtu",
    "rte_eth_promiscuous_enable",
    "rte_eth_promiscuous_disable",
    "rte_eth_stats_reset",
    "rte_eth_xstats_get",
    "rte_eth_xstats_get_names",
    "rte_eth_xstats_reset",
    "rte_cryptodev_get_dev_id",
    "rte_cryptodev_start",
    "rte_cryptodev_stop",
    "rte_cryptodev_close",
    "rte_cryptodev_stats_reset",
    "rte_cryptodev_sym_session_free",
    "oct_.*",
];

/// A target-specific variable if there is one, else the plain one: the rule the `pkg-config` crate follows.
fn target_env(name: &str) -> Option<OsString> {
    let target = env::var("TARGET").unwrap_or_default();
    let flat = target.replace('-', "_");
    [
        format!("{name}_{target}"),
        format!("{name}_{flat}"),
        format!("TARGET_{name}"),
        name.to_owned(),
    ]
    .iter()
    .find_map(env::var_os)
}

/// The compiler flags other than `-I`, which the `pkg-config` crate does not report
/// (`-include rte_config.h -march=...`): the inline functions and structures depend on them.
fn other_cflags() -> Result<Vec<String>, String> {
    let mut command = Command::new(target_env("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into()));
    command.args(["--cflags-only-other", "libdpdk"]);
    for name in ["PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR", "PKG_CONFIG_SYSROOT_DIR"] {
        if let Some(value) = target_env(name) {
            command.env(name, value);
        }
    }
    let output = command
        .output()
        .map_err(|e| format!("pkg-config does not run: {e}"))?;
    if !output.status.success() {
        return Err(format!(
            "pkg-config --cflags-only-other libdpdk: {}",
            output.status
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .map(str::to_owned)
        .collect())
}

fn compile_shim(includes: &[PathBuf], cflags: &[String]) -> Result<(), String> {
    let mut build = cc::Build::new();
    // The shim is on the packet path, so it is optimised in debug builds too.
    build
        .files(["shim.c", "crypto.c"])
        .includes(includes)
        .opt_level(3)
        .warnings(true);
    for flag in cflags {
        build.flag(flag);
    }
    build
        .try_compile("octoplane_dpdk_shim")
        .map_err(|e| one_line("the C shim does not compile", &e))
}

fn generate(includes: &[PathBuf], cflags: &[String], out: &Path) -> Result<(), String> {
    let target = env::var("TARGET").unwrap_or_default();
    let mut builder = bindgen::Builder::default()
        .header("wrapper.h")
        .use_core()
        .layout_tests(true)
        .generate_comments(false)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        // Not recursively: the structures behind the pointers differ between releases and builds.
        .allowlist_recursively(false)
        .allowlist_var("OCT_.*")
        .allowlist_type("oct_.*")
        .allowlist_type("rte_eth_xstat")
        .allowlist_type("rte_eth_xstat_name");
    for function in FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    builder = builder.clang_args(includes.iter().map(|dir| format!("-I{}", dir.display())));
    // CPU names are the C compiler's: clang may not know them, and off x86 no header needs them.
    let x86 = target.starts_with("x86_64");
    builder = builder.clang_args(
        cflags
            .iter()
            .filter(|flag| x86 || !(flag.starts_with("-mcpu") || flag.starts_with("-march"))),
    );
    let bindings = builder
        .generate()
        .map_err(|e| one_line("bindgen fails on the DPDK headers", &e))?;
    bindings
        .write_to_file(out)
        .map_err(|e| format!("{} cannot be written: {e}", out.display()))
}

fn one_line(what: &str, error: &dyn Display) -> String {
    format!("{what}: {}", error.to_string().replace('\n', " | "))
}

fn run() -> Result<(), String> {
    for file in [
        "build.rs",
        "shim.c",
        "shim.h",
        "crypto.c",
        "crypto.h",
        "crypto_op.h",
        "wrapper.h",
    ] {
        println!("cargo::rerun-if-changed={file}");
    }
    let mut config = pkg_config::Config::new();
    config.atleast_version(OLDEST);
    let library = config.cargo_metadata(false).probe("libdpdk").map_err(|error| {
        let found = pkg_config::Config::new()
            .cargo_metadata(false)
            .probe("libdpdk")
            .map(|l| l.version);
        let why = match (found, error) {
            (Ok(version), _) => format!("version {version} is installed"),
            (Err(_), pkg_config::Error::Command { cause, .. }) => {
                format!("pkg-config does not run ({cause})")
            }
            (Err(_), _) => "pkg-config does not find it (is PKG_CONFIG_PATH right?)".to_owned(),
        };
        format!(
            "libdpdk {OLDEST} or newer is needed and {why}. \
             Install it, on Debian or Ubuntu: apt-get install libdpdk-dev pkg-config"
        )
    })?;
    let cflags = other_cflags()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("bindings.rs");
    // The order matters to the linker: first the shim, then what it calls.
    compile_shim(&library.include_paths, &cflags)?;
    config
        .cargo_metadata(true)
        .probe("libdpdk")
        .map_err(|e| one_line("libdpdk", &e))?;
    generate(&library.include_paths, &cflags, &out)
}

fn main() {
    if let Err(message) = run() {
        // The build fails by this line. A failing exit code would add the whole output of the script.
        println!("cargo::error={message}");
    }
}
