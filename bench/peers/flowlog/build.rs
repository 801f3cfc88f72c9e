//! Compiles the programs.

fn main() -> std::io::Result<()> {
    for program in ["closure", "triangles", "same_generation"] {
        flowlog_build::compile(format!("programs/{program}.dl"))?;
    }
    Ok(())
}
