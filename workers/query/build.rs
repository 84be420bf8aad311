//! Lets this crate's tests find libduckdb, and says in one sentence what is missing when it is not there to link.

use std::{env, path::Path, process::exit};

const LIBRARIES: [&str; 2] = ["libduckdb.so", "libduckdb.dylib"];

fn main() {
    println!("cargo:rerun-if-env-changed=DUCKDB_LIB_DIR");
    let folders = match env::var("DUCKDB_LIB_DIR") {
        Ok(folder) => {
            println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
            vec![folder]
        }
        Err(_) => system_folders(),
    };
    if !folders.iter().any(|folder| LIBRARIES.iter().any(|name| Path::new(folder).join(name).exists())) {
        eprintln!(
            "libduckdb is not in {}: run `eval \"$(make -s env)\"` in the clone, which fetches it and says where it is, \
             or set DUCKDB_LIB_DIR to the folder of DuckDB 1.5.5's library",
            folders.join(" or ")
        );
        exit(1);
    }
}

/// Where a linker looks without being told.
fn system_folders() -> Vec<String> {
    let triple = format!("{}-linux-gnu", env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default());
    let folders = ["/usr/local/lib", "/usr/lib", "/usr/lib64", "/opt/homebrew/lib"];
    folders.into_iter().map(str::to_owned).chain([format!("/usr/lib/{triple}")]).collect()
}
