//! The name that was probably meant.

/// The candidate closest to `name`, if one is close enough to be worth a hint.
///
/// Distance counts inserted, removed, changed and swapped characters; up to a third of the name may differ.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| candidate.chars().count().abs_diff(name.chars().count()) <= limit)
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|&(distance, _)| distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment, over the first 64 characters: names are short, and a client chooses one of the two.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 64;
    let a: Vec<char> = a.chars().take(LONGEST).flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().take(LONGEST).flat_map(char::to_lowercase).collect();
    let width = b.len() + 1;
    let mut table: Vec<usize> = (0..(a.len() + 1) * width).map(|i| if i < width { i } else { 0 }).collect();
    for i in 1..=a.len() {
        table[i * width] = i;
        for j in 1..=b.len() {
            let change = table[(i - 1) * width + j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(table[(i - 1) * width + j] + 1).min(table[i * width + j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(table[(i - 2) * width + j - 2] + 1);
            }
            table[i * width + j] = best;
        }
    }
    table[a.len() * width + b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_within_a_third_are_near() {
        let names = ["likes", "price", "popular", "x"];
        assert_eq!(nearest("lieks", names), Some("likes"));
        assert_eq!(nearest("Likes", names), Some("likes"));
        assert_eq!(nearest("populr", names), Some("popular"));
        assert_eq!(nearest("nothing", names), None);
        assert_eq!(nearest("", names), Some("x"));
        assert_eq!(nearest("q", []), None);
    }
}
