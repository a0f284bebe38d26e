use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// The window as RFC 4303, section 3.4.3 describes it: the numbers accepted, and the highest of them.
#[derive(Default)]
struct Model {
    size: u64,
    top: u64,
    seen: HashSet<u64>,
}

impl Model {
    fn accept(&mut self, sequence: u64) -> Result<(), Replay> {
        if sequence == 0 || sequence + self.size <= self.top {
            return Err(Replay::TooOld);
        }
        if !self.seen.insert(sequence) {
            return Err(Replay::Duplicate);
        }
        self.top = self.top.max(sequence);
        Ok(())
    }
}

#[test]
fn every_size_keeps_exactly_that_many() {
    for size in 1..=200 {
        let window: ReplayWindow = ReplayWindow::new(size, 0);
        let top = 1000;
        assert_eq!(window.accept(top), Ok(()));
        for behind in 1..u64::from(size) {
            assert_eq!(window.check(top - behind), Ok(()), "{behind} behind in {size}");
            assert_eq!(window.accept(top - behind), Ok(()), "{behind} behind in {size}");
            assert_eq!(window.check(top - behind), Err(Replay::Duplicate));
        }
        assert_eq!(window.check(top - u64::from(size)), Err(Replay::TooOld));
        assert_eq!(window.accept(top - u64::from(size)), Err(Replay::TooOld));
    }
}

#[test]
fn number_zero_is_never_accepted() {
    let window: ReplayWindow = ReplayWindow::new(64, 0);
    assert_eq!(window.check(0), Err(Replay::TooOld));
    assert_eq!(window.accept(0), Err(Replay::TooOld));
}

#[test]
fn size_zero_accepts_everything_and_follows_the_top() {
    let window: ReplayWindow = ReplayWindow::new(0, 0);
    for sequence in [5, 5, 1, 0, 9] {
        assert_eq!(window.check(sequence), Ok(()));
        assert_eq!(window.accept(sequence), Ok(()));
    }
    assert_eq!(window.top(), 9);
}

#[test]
fn a_start_in_the_middle_refuses_what_may_have_been_accepted_before() {
    for top in [1, 15, 16, 17, 100, 5000, 1 << 40] {
        let window: ReplayWindow = ReplayWindow::new(1024, top);
        for sequence in top.saturating_sub(3000)..=top {
            assert!(window.check(sequence).is_err(), "{sequence} after {top}");
            assert!(window.accept(sequence).is_err(), "{sequence} after {top}");
        }
        for sequence in top + 1..top + 3000 {
            assert_eq!(window.accept(sequence), Ok(()), "{sequence} after {top}");
        }
    }
}

#[test]
fn a_long_jump_forgets_nothing_it_should_know() {
    let window: ReplayWindow = ReplayWindow::new(4096, 0);
    for sequence in [1, 1 << 33, (1 << 33) - 4095, 1 << 50, 1 << 51] {
        assert_eq!(window.accept(sequence), Ok(()));
        assert!(window.accept(sequence).is_err());
    }
    assert_eq!(window.accept(1), Err(Replay::TooOld));
}

proptest! {
    #[test]
    fn is_the_model(
        size in prop_oneof![1u32..100, 4000u32..=4096],
        steps in proptest::collection::vec((0u64..6000, any::<bool>(), 1usize..40), 1..60),
        start in prop_oneof![Just(1u64), Just((1 << 32) - 3000), Just(1 << 50)],
    ) {
        let window: ReplayWindow = ReplayWindow::new(size, 0);
        let mut model = Model { size: size.into(), ..Model::default() };
        let mut at = start;
        for (distance, forward, run) in steps {
            at = if forward { at + distance } else { at.saturating_sub(distance) };
            // A run with every number, with gaps and with a repetition.
            let numbers: Vec<u64> = (0..run as u64).map(|i| at + i * (distance % 3) - u64::from(i == 7 && at > 0)).collect();
            let mut verdicts = vec![Ok(()); numbers.len()];
            for number in &numbers {
                let expected = if *number == 0 || *number + u64::from(size) <= model.top { Err(Replay::TooOld) }
                    else if model.seen.contains(number) { Err(Replay::Duplicate) } else { Ok(()) };
                prop_assert_eq!(window.check(*number), expected);
            }
            window.accept_all(&numbers, &mut verdicts);
            for (number, verdict) in numbers.iter().zip(verdicts) {
                prop_assert_eq!(verdict, model.accept(*number), "number {}", number);
            }
            prop_assert_eq!(window.top(), model.top);
        }
    }
}
