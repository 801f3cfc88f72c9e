//! What is computed on: tables of small numbers, equal for every engine, and changes of them.
//!
//! * [`graph`], [`program`]: tables made from a fixed seed. [`file`](read): tables that others made.

pub mod graph;
pub mod program;

use std::path::Path;

/// A relation's rows. Every column is a number of 32 bits, which the hand-written dataflows hold as such.
#[derive(Clone, Debug)]
pub struct Table {
    /// The relation's name in programs.
    pub name: String,
    /// Columns.
    pub width: usize,
    words: Vec<u32>,
}

impl Table {
    /// A table of these rows.
    pub fn new<const N: usize>(name: &str, rows: impl IntoIterator<Item = [u32; N]>) -> Table {
        Table { name: name.into(), width: N, words: rows.into_iter().flatten().collect() }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.words.len() / self.width
    }

    /// The row at `index`.
    pub fn row(&self, index: usize) -> &[u32] {
        &self.words[index * self.width..(index + 1) * self.width]
    }

    /// The rows as a file of facts.
    pub fn facts(&self) -> String {
        let line = |row: &[u32]| row.iter().map(u32::to_string).collect::<Vec<_>>().join("\t") + "\n";
        self.words.chunks(self.width).map(line).collect()
    }
}

/// Reads `<name>.facts`: numbers of 32 bits without a sign.
pub fn read(directory: &Path, name: &str) -> Table {
    let path = directory.join(format!("{name}.facts"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let width = text.lines().next().map_or(1, |line| line.split('\t').count());
    let words = text.lines().flat_map(|line| line.split('\t'));
    let words = words.map(|word| word.parse().unwrap_or_else(|_| panic!("{}: {word:?}", path.display())));
    Table { name: name.into(), width, words: words.collect() }
}

/// Writes `<name>.facts` of each table, and `changes`: a line a transaction, of the places of rows of the first table that
/// leave (`-7`) and come back (`+7`).
pub fn write(tables: &[Table], batches: &[Batch], directory: &Path) -> std::io::Result<()> {
    for table in tables {
        std::fs::write(directory.join(format!("{}.facts", table.name)), table.facts())?;
    }
    let line = |batch: &Batch| {
        let deleted = batch.delete.iter().map(|place| format!("-{place}"));
        let inserted = batch.insert.iter().map(|place| format!("+{place}"));
        deleted.chain(inserted).collect::<Vec<_>>().join(" ") + "\n"
    };
    std::fs::write(directory.join("changes"), batches.iter().map(line).collect::<String>())
}

/// What changes in one transaction after loading: indices of rows of the first table.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Rows that leave.
    pub delete: Vec<usize>,
    /// Rows that come back.
    pub insert: Vec<usize>,
}

/// So many transactions of `size` changes: half of them take rows away, half put back those that the one before took.
/// Transactions of one change take a row and put it back in turns.
pub fn batches(rows: usize, size: usize, count: usize) -> Vec<Batch> {
    // A step that visits every row once, far from the one before.
    let step = (rows as f64 * 0.618) as usize;
    let step = (step.max(1)..).find(|step| gcd(*step, rows) == 1).unwrap_or(1);
    let mut picked = (0..).map(|index| index * step % rows);
    let mut batches = vec![Batch::default(); count];
    for index in 0..count {
        if size == 1 && index % 2 == 1 {
            continue;
        }
        let delete: Vec<usize> = picked.by_ref().take(size.div_ceil(2)).collect();
        if let Some(next) = batches.get_mut(index + 1) {
            next.insert.clone_from(&delete);
        }
        batches[index].delete = delete;
    }
    batches
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Numbers from a fixed seed.
pub struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        (0..16).for_each(|_| {
            let _ = random.next();
        });
        random
    }
}

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    /// At least 0, less than 1.
    pub fn unit(&mut self) -> f64 {
        self.next() as f64 / (1u64 << 53) as f64
    }

    /// Less than `bound`.
    pub fn below(&mut self, bound: u32) -> u32 {
        (self.next() % u64::from(bound.max(1))) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_puts_back_what_the_one_before_took() {
        for size in [1, 2, 10] {
            let batches = batches(1_000, size, 6);
            let mut gone: Vec<usize> = Vec::new();
            for batch in &batches {
                assert!(batch.insert.iter().all(|row| gone.contains(row)), "size {size}");
                gone.retain(|row| !batch.insert.contains(row));
                assert!(batch.delete.iter().all(|row| !gone.contains(row)), "size {size}");
                gone.extend(&batch.delete);
            }
            let full = batches.iter().skip(1).map(|batch| batch.delete.len() + batch.insert.len());
            assert!(
                full.clone().all(|changes| changes == size),
                "size {size}: {:?}",
                full.collect::<Vec<_>>()
            );
        }
    }
}
