//! Which column stands where in an arrangement.

use crate::trace::Agent;

/// How an arrangement keeps rows: the columns that it is arranged by, then the others from left to right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    key: Vec<usize>,
    /// Columns of a row.
    width: usize,
}

/// A relation's rows as they are kept.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) agent: Agent<u64>,
    pub(crate) layout: Layout,
}

impl Layout {
    /// Arranged by these columns of `width`.
    pub(crate) fn by(key: &[usize], width: usize) -> Self {
        Layout { key: key.to_vec(), width }
    }

    /// Arranged by these columns if any are told, else by whole rows.
    pub(crate) fn by_or_whole(key: Option<&Vec<usize>>, width: usize) -> Self {
        key.map_or_else(|| Layout::whole(width), |key| Layout::by(key, width))
    }

    /// Arranged by whole rows, as they are.
    pub(crate) fn whole(width: usize) -> Self {
        Layout { key: (0..width).collect(), width }
    }

    /// The columns that rows are arranged by.
    pub(crate) fn key(&self) -> &[usize] {
        &self.key
    }

    /// Columns of a row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// All columns, as they follow each other. One that stands in the key twice does so here.
    pub(crate) fn order(&self) -> Vec<usize> {
        let others = (0..self.width).filter(|column| !self.key.contains(column));
        self.key.iter().copied().chain(others).collect()
    }

    /// For each column its position.
    pub(crate) fn positions(&self) -> Vec<usize> {
        let order = self.order();
        (0..self.width).map(|column| order.iter().position(|&at| at == column).unwrap_or(0)).collect()
    }

    /// For each position of this one the position in `other`, which is of the same rows.
    pub(crate) fn within(&self, other: &Layout) -> Vec<usize> {
        let at = other.positions();
        self.order().into_iter().map(|column| at[column]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_comes_first_and_the_others_from_left_to_right() {
        let layout = Layout::by(&[3, 1], 4);
        assert_eq!((layout.order(), layout.positions()), (vec![3, 1, 0, 2], vec![2, 1, 3, 0]));
        assert_eq!(Layout::by(&[], 3).order(), Layout::whole(3).order());
        let twice = Layout::by(&[1, 1], 2);
        assert_eq!((twice.order(), twice.positions()), (vec![1, 1, 0], vec![2, 0]));
    }

    #[test]
    fn rows_go_from_one_layout_to_another() {
        let (from, to) = (Layout::by(&[3, 1], 4), Layout::by(&[2], 4));
        assert_eq!(to.within(&from), vec![3, 2, 1, 0]);
        assert_eq!(from.within(&Layout::whole(4)), from.order());
        assert_eq!(Layout::whole(4).within(&from), from.positions());
    }
}
