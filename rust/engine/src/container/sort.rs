//! Sorting and consolidating of updates.
//!
//! The order is that of the row's words, then of the time. Consolidated means sorted, with one update for each row
//! and time, none of difference 0.
//!
//! Rows aren't moved while they are sorted, and seldom compared: what is sorted are integers, made of the bits in which
//! the rows differ and of each row's place ([`Packing`]).

use dataflow_protocol::value::Word;

use super::column::EngineTime;
use super::updates::{Diff, Updates};

/// So few rows are compared as they are, which takes less time than packing them.
const FEW: usize = 8;

/// Sorts and consolidates.
pub(crate) fn consolidate<T: EngineTime>(updates: &mut Updates<T>) {
    if updates.len() < 2 && (updates.is_empty() || updates.diff(0) != 0) {
        return;
    }
    *updates = if updates.len() <= FEW {
        few(updates)
    } else {
        let packing = Packing::of(updates.words(), updates.width(), updates.len());
        if packing.bits <= u64::BITS {
            packed::<u64, T>(updates, &packing)
        } else {
            packed::<u128, T>(updates, &packing)
        }
    };
}

fn few<T: EngineTime>(updates: &Updates<T>) -> Updates<T> {
    let mut order: [usize; FEW] = std::array::from_fn(|index| index);
    let order = &mut order[..updates.len()];
    order.sort_unstable_by(|&a, &b| updates.row(a).cmp(updates.row(b)));
    let mut sorted = Updates::with_capacity(updates.width(), updates.len());
    push_sorted(&mut sorted, updates, order, &mut Vec::new());
    sorted
}

/// What is sorted in place of a row: the fields of its packing, the first one uppermost, and below them the row's place.
trait Packed: Copy + Ord {
    fn new(row: &[Word], packing: &Packing, place: usize) -> Self;
    /// The fields alone.
    fn fields(self, packing: &Packing) -> Self;
    fn place(self, packing: &Packing) -> usize;
}

macro_rules! packed {
    ($integer:ty) => {
        impl Packed for $integer {
            #[inline]
            fn new(row: &[Word], packing: &Packing, place: usize) -> Self {
                let fields = packing.fields.iter().fold(0, |packed, field| {
                    packed << field.bits
                        | Self::from(row[field.column] >> field.shift & (u64::MAX >> (64 - field.bits)))
                });
                fields << packing.place_bits | place as Self
            }

            #[inline]
            fn fields(self, packing: &Packing) -> Self {
                self >> packing.place_bits
            }

            #[inline]
            fn place(self, packing: &Packing) -> usize {
                (self & ((1 << packing.place_bits) - 1)) as usize
            }
        }
    };
}

packed!(u64);
packed!(u128);

/// Which bits of rows order them.
///
/// Values of a column mostly agree in many upper bits (small numbers do in all but a few) and some lower ones (texts).
/// The others, of one column after the other, are a number that orders the rows as the rows themselves do.
struct Packing {
    fields: Vec<Field>,
    /// How many bits a row's place takes.
    place_bits: u32,
    /// How many bits there are in all.
    bits: u32,
    /// Whether the fields are all in which the rows differ; otherwise rows of equal fields are to be compared.
    whole: bool,
}

/// At least one bit of a column.
struct Field {
    column: usize,
    /// Bits below it.
    shift: u32,
    bits: u32,
}

impl Packing {
    fn of(words: &[Word], width: usize, rows: usize) -> Packing {
        let place_bits = usize::BITS - (rows - 1).leading_zeros();
        let mut packing = Packing { fields: Vec::new(), place_bits, bits: place_bits, whole: true };
        let mut differing = vec![0; width];
        if width > 0 {
            let first = &words[..width];
            for row in words.chunks_exact(width) {
                for ((differing, word), first) in differing.iter_mut().zip(row).zip(first) {
                    *differing |= word ^ first;
                }
            }
        }
        for (column, &differing) in differing.iter().enumerate().filter(|&(_, &differing)| differing != 0) {
            let end = u64::BITS - differing.leading_zeros();
            let all = end - differing.trailing_zeros();
            let bits = all.min(u128::BITS - packing.bits);
            if bits > 0 {
                packing.fields.push(Field { column, shift: end - bits, bits });
                packing.bits += bits;
            }
            if bits < all {
                packing.whole = false;
                break;
            }
        }
        packing
    }
}

fn packed<P: Packed, T: EngineTime>(updates: &Updates<T>, packing: &Packing) -> Updates<T> {
    let rows = 0..updates.len();
    let mut keys: Vec<P> = rows.map(|place| P::new(updates.row(place), packing, place)).collect();
    keys.sort_unstable();
    let mut sorted = Updates::with_capacity(updates.width(), updates.len());
    let (mut places, mut times) = (Vec::new(), Vec::new());
    for alike in keys.chunk_by(|a, b| a.fields(packing) == b.fields(packing)) {
        if let [only] = alike {
            push_alone(&mut sorted, updates, only.place(packing));
            continue;
        }
        places.clear();
        places.extend(alike.iter().map(|key| key.place(packing)));
        if packing.whole {
            push_equal(&mut sorted, updates, &places, &mut times);
        } else {
            places.sort_unstable_by(|&a, &b| updates.row(a).cmp(updates.row(b)));
            push_sorted(&mut sorted, updates, &places, &mut times);
        }
    }
    sorted
}

/// Appends the updates at `places`, whose rows are in order.
fn push_sorted<T: EngineTime>(
    sorted: &mut Updates<T>,
    updates: &Updates<T>,
    places: &[usize],
    times: &mut Vec<(T, Diff)>,
) {
    for equal in places.chunk_by(|&a, &b| updates.row(a) == updates.row(b)) {
        match equal {
            [only] => push_alone(sorted, updates, *only),
            _ => push_equal(sorted, updates, equal, times),
        }
    }
}

/// Appends the update at `place`, whose row stands once.
#[inline]
fn push_alone<T: EngineTime>(sorted: &mut Updates<T>, updates: &Updates<T>, place: usize) {
    let diff = updates.diff(place);
    if diff != 0 {
        sorted.push(updates.row(place), updates.time(place), diff);
    }
}

/// Appends the updates at `places`, all of one row: sorted by time, differences added up.
fn push_equal<T: EngineTime>(
    sorted: &mut Updates<T>,
    updates: &Updates<T>,
    places: &[usize],
    times: &mut Vec<(T, Diff)>,
) {
    times.clear();
    times.extend(places.iter().map(|&place| (updates.time(place), updates.diff(place))));
    consolidate_times(times);
    for &(time, diff) in times.iter() {
        sorted.push(updates.row(places[0]), time, diff);
    }
}

/// Sorts times, adds up the differences of equal ones, drops those of difference 0.
pub(crate) fn consolidate_times<T: EngineTime>(times: &mut Vec<(T, Diff)>) {
    if times.len() > 1 {
        times.sort_unstable_by_key(|&(time, _)| time);
        times.dedup_by(|next, kept| {
            let equal = next.0 == kept.0;
            if equal {
                kept.1 += next.1;
            }
            equal
        });
    }
    times.retain(|&(_, diff)| diff != 0);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::random::random;

    /// Columns of all kinds: constant, small, biased as numbers are, texts in the upper bits, any word at all.
    fn word(kind: u64, random: u64) -> Word {
        match kind % 6 {
            0 => 7,
            1 => random % 3,
            2 => (1 << 63) + random % 1_000 - 500,
            3 => random << 48,
            4 => random.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            _ => [0, u64::MAX][(random % 2) as usize],
        }
    }

    #[test]
    fn what_is_sorted_adds_up_to_what_was_there_in_order() {
        let mut state = 11u64;
        let mut random = move || random(&mut state, 1 << 31);
        for width in 0..8usize {
            for rows in [0, 1, 2, FEW, FEW + 1, 40, 700] {
                for kinds in 0..12u64 {
                    let mut updates = Updates::<u64>::new(width);
                    let mut sums: BTreeMap<(Vec<Word>, u64), Diff> = BTreeMap::new();
                    for _ in 0..rows {
                        let kind = |column: usize| {
                            kinds.wrapping_mul(column as u64 + 1) + column as u64 * (kinds / 6)
                        };
                        let row: Vec<Word> = (0..width).map(|column| word(kind(column), random())).collect();
                        let (time, diff) = (random() % 2, (random() % 3) as Diff - 1);
                        for _ in 0..1 + random() % 2 {
                            updates.push(&row, time, diff);
                            *sums.entry((row.clone(), time)).or_default() += diff;
                        }
                    }
                    consolidate(&mut updates);
                    let found: Vec<_> = (0..updates.len())
                        .map(|index| {
                            ((updates.row(index).to_vec(), updates.time(index)), updates.diff(index))
                        })
                        .collect();
                    let expected: Vec<_> = sums.into_iter().filter(|(_, diff)| *diff != 0).collect();
                    assert_eq!(found, expected, "{rows} rows of width {width}, kinds {kinds}");
                }
            }
        }
    }
}
