//! Tells the programs which versions of the drivers they are built with.

use std::fs;

fn main() {
    println!("cargo::rerun-if-changed=Cargo.lock");
    let lock = fs::read_to_string("Cargo.lock").unwrap();
    for driver in ["tokio-postgres", "sqlx", "diesel"] {
        let rest = lock.split(&format!("name = \"{driver}\"\nversion = \"")).nth(1).unwrap();
        let version = rest.split('"').next().unwrap();
        println!("cargo::rustc-env=VERSION_{}={version}", driver.replace('-', "_").to_uppercase());
    }
}
