//! Tells the behaviour suite whether there is a Kyoto Tycoon server to run over: `KT_URL` names
//! it. Nothing else is decided here, and without it nothing happens.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(kt_url)");
    println!("cargo::rerun-if-env-changed=KT_URL");
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("KT_URL").is_some() {
        println!("cargo::rustc-cfg=kt_url");
    }
}
