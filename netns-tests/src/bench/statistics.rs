//! Statistics of a series of figures: median, percentile, minimum, maximum.

/// A series of figures, in the order of their measurement.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series(Vec<f64>);

impl Series {
    /// Adds a figure.
    pub fn push(&mut self, figure: f64) {
        let place = self.0.partition_point(|other| *other <= figure);
        self.0.insert(place, figure);
    }

    /// The median: the middle figure, or the mean of the two in the middle.
    pub fn median(&self) -> Option<f64> {
        let middle = self.0.len() / 2;
        let upper = *self.0.get(middle)?;
        if self.0.len() % 2 == 1 {
            return Some(upper);
        }
        let lower = middle.checked_sub(1).and_then(|index| self.0.get(index))?;
        Some((lower + upper) / 2.0)
    }

    /// The percentile: the smallest figure that at least `percent` of all do not exceed (nearest
    /// rank).
    pub fn percentile(&self, percent: u32) -> Option<f64> {
        let rank = (self.0.len() * percent as usize).div_ceil(100);
        self.0.get(rank.max(1) - 1).copied()
    }

    /// Appends another series.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
        self.0.sort_by(f64::total_cmp);
    }

    /// The share of figures of at least `bound`, from 0 to 1; 0 for an empty series.
    pub fn share_from(&self, bound: f64) -> f64 {
        let below = self.0.partition_point(|figure| *figure < bound);
        (self.0.len() - below) as f64 / self.0.len().max(1) as f64
    }

    /// The minimum.
    pub fn least(&self) -> Option<f64> {
        self.0.first().copied()
    }

    /// The maximum.
    pub fn most(&self) -> Option<f64> {
        self.0.last().copied()
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(figures: I) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Self(sorted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(figures: &[f64]) -> Series {
        figures.iter().copied().collect()
    }

    #[test]
    fn median_is_the_middle() {
        assert_eq!(series(&[3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(series(&[4.0, 1.0, 2.0, 3.0]).median(), Some(2.5));
        assert_eq!(series(&[7.0]).median(), Some(7.0));
        assert_eq!(series(&[]).median(), None);
    }

    #[test]
    fn percentile_is_a_figure_that_occurred() {
        let hundred: Series = (1..=100).rev().map(f64::from).collect();
        assert_eq!(hundred.percentile(99), Some(99.0));
        assert_eq!(hundred.percentile(50), Some(50.0));
        assert_eq!(hundred.percentile(100), Some(100.0));
        assert_eq!(hundred.percentile(0), Some(1.0));
        assert_eq!(series(&[5.0, 9.0]).percentile(99), Some(9.0));
        assert_eq!(series(&[]).percentile(99), None);
    }

    #[test]
    fn a_share_is_of_all_figures() {
        let mut figures = series(&[1.0, 3.0]);
        figures.extend(series(&[2.0, 3.0]));
        assert_eq!(figures.share_from(3.0), 0.5);
        assert_eq!(figures.share_from(4.0), 0.0);
        assert_eq!(series(&[]).share_from(0.0), 0.0);
    }

    #[test]
    fn figures_pushed_in_any_order_are_sorted() {
        let mut pushed = Series::default();
        for figure in [2.0, 9.0, 1.0, 2.0] {
            pushed.push(figure);
        }
        assert_eq!(pushed, series(&[1.0, 2.0, 2.0, 9.0]));
        assert_eq!((pushed.least(), pushed.most()), (Some(1.0), Some(9.0)));
    }
}
