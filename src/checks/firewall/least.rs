//! The fewest of some changes that let something through; pure, for a bench does what is to be done.

use std::collections::BTreeSet;

/// Where changes, known by their numbers, are tried.
pub trait Bench {
    /// Was it done?
    fn apply(&mut self, n: usize) -> bool;
    /// Was it undone?
    fn undo(&mut self, n: usize) -> bool;
    /// Does everything come through now?
    fn through(&mut self) -> bool;
    /// Is the time up?
    fn late(&self) -> bool;
}

#[derive(Debug, PartialEq, Eq)]
pub struct Least {
    /// What was done when everything came through.
    pub needed: Option<Vec<usize>>,
    /// The time was up before all changes were tried.
    pub hurried: bool,
    /// All is undone.
    pub clean: bool,
}

/// One change after the other is added until nothing is lost, then each is left out that is not missed. What could not be taken out again may be what helps: it
/// stays among what is needed.
pub fn least(bench: &mut impl Bench, count: usize) -> Least {
    let (mut done, mut through, mut hurried, mut clean) = (BTreeSet::new(), false, false, true);
    for n in 0..count {
        hurried = bench.late();
        if hurried {
            break;
        }
        if bench.apply(n) {
            done.insert(n);
            through = bench.through();
        }
        if through {
            break;
        }
    }
    let mut needed = done.clone();
    for n in done.clone().into_iter().rev().skip(1).filter(|_| through) {
        if bench.late() {
            break;
        }
        if !bench.undo(n) {
            clean = false;
            break;
        }
        done.remove(&n);
        if bench.through() {
            needed.remove(&n);
        } else if bench.apply(n) {
            done.insert(n);
        } else {
            // Without it nothing comes through, whatever else is left out.
            break;
        }
    }
    for n in done {
        clean &= bench.undo(n);
    }
    Least { needed: through.then(|| needed.into_iter().collect()), hurried, clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything comes through with all of `wanted`.
    #[derive(Default)]
    struct Fake {
        wanted: BTreeSet<usize>,
        there: BTreeSet<usize>,
        /// So many calls are done, then none is.
        calls: usize,
        late_after: usize,
    }

    impl Fake {
        fn call(&mut self) -> bool {
            self.calls = self.calls.saturating_sub(1);
            self.late_after = self.late_after.saturating_sub(1);
            self.calls > 0
        }
    }

    impl Bench for Fake {
        fn apply(&mut self, n: usize) -> bool {
            self.call() && self.there.insert(n)
        }
        fn undo(&mut self, n: usize) -> bool {
            self.call() && self.there.remove(&n)
        }
        fn through(&mut self) -> bool {
            self.there.is_superset(&self.wanted)
        }
        fn late(&self) -> bool {
            self.late_after == 0
        }
    }

    fn tried(wanted: &[usize], calls: usize, late_after: usize) -> Least {
        let mut fake = Fake { wanted: wanted.iter().copied().collect(), calls, late_after, ..Fake::default() };
        least(&mut fake, 5)
    }

    #[test]
    fn what_is_not_missed_is_left_out() {
        let found = |needed: &[usize]| Least { needed: Some(needed.to_vec()), hurried: false, clean: true };
        assert_eq!(tried(&[1, 3], 99, 99), found(&[1, 3]));
        assert_eq!(tried(&[4], 99, 99), found(&[4]));
        assert_eq!(tried(&[7], 99, 99), Least { needed: None, hurried: false, clean: true });
    }

    #[test]
    fn a_part_that_cannot_be_put_back_is_no_part_that_is_not_needed() {
        // 0 to 3 are done; 2 is taken out and not missed; 1 is, and from then on nothing can be done.
        let left = tried(&[1, 3], 7, 99);
        assert_eq!(left, Least { needed: Some(vec![0, 1, 3]), hurried: false, clean: false });
        // Not even the first can be taken out.
        let left = tried(&[1, 3], 5, 99);
        assert_eq!(left, Least { needed: Some(vec![0, 1, 2, 3]), hurried: false, clean: false });
    }

    #[test]
    fn nothing_is_begun_when_the_time_is_up() {
        assert_eq!(tried(&[3], 99, 2), Least { needed: None, hurried: true, clean: true });
        assert_eq!(tried(&[1, 3], 99, 4).needed, Some(vec![0, 1, 2, 3]), "there was no time to leave any out");
    }
}
