//! Compiles the programs: as they are for batch runs, and with inputs that may change.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let out = std::env::var("OUT_DIR").map_err(std::io::Error::other)?;
    for program in ["closure", "triangles", "same_generation"] {
        let path = format!("programs/{program}.dl");
        flowlog_build::compile(&path)?;
        println!("cargo:rerun-if-changed={path}");
        let text = std::fs::read_to_string(path)?;
        let (input, rest) =
            text.split_once(".input").ok_or(std::io::Error::other("a program without input"))?;
        let live = Path::new(&out).join(format!("live_{program}.dl"));
        std::fs::write(&live, format!("{} mutable\n.input{rest}", input.trim_end()))?;
        flowlog_build::compile(live)?;
    }
    Ok(())
}
