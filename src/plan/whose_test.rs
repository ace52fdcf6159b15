//! The whole table: each source against each holder.

use super::{Answer, Case, Claim, Holder, Verdict, judge};
use crate::model::Source::{self, DhcpHost, Fabric, Lease, Manual, Neighbour};
use Verdict::{Ask, Its, Stays};

fn case(source: Source, holder: Holder) -> Case {
    Case { source, claim: Claim::Uses, had_it: false, holder, answer: Answer::NotAsked }
}

#[test]
fn whose_it_is_by_who_says_so() {
    use Holder::{Here, Itself, Nobody, Operator, Vtep};
    for (holder, by_lease, by_word) in [
        (Nobody, Its, Its),
        (Itself, Its, Stays),
        (Here(Manual), Stays, Stays),
        (Here(DhcpHost), Stays, Stays),
        (Here(Lease), Ask, Stays),
        (Here(Neighbour), Its, Ask),
        (Here(Fabric), Its, Ask),
        (Vtep, Ask, Ask),
        (Operator, Stays, Stays),
    ] {
        assert_eq!((judge(&case(Lease, holder)), judge(&case(Neighbour, holder))), (by_lease, by_word), "{holder:?}");
        for (source, verdict) in [(Lease, by_lease), (Neighbour, by_word)] {
            let answered = |answer| judge(&Case { answer, ..case(source, holder) });
            let expected = if verdict == Ask { (Stays, Its) } else { (verdict, verdict) };
            assert_eq!((answered(Answer::Yes), answered(Answer::No)), expected, "{source:?} {holder:?}");
            // Whoever asks whether it is free takes it from nobody, whatever it had.
            let asks = Case { claim: Claim::Asks, had_it: true, answer: Answer::No, ..case(source, holder) };
            assert_eq!(judge(&asks), if holder == Nobody { Its } else { Stays });
        }
    }
}

#[test]
fn who_was_silent_for_a_moment_gets_it_back() {
    let back = |source, holder| judge(&Case { had_it: true, answer: Answer::Yes, ..case(source, holder) });
    assert_eq!(back(Neighbour, Holder::Here(Neighbour)), Its);
    assert_eq!(back(Lease, Holder::Vtep), Its);
    assert_eq!(back(Neighbour, Holder::Here(Lease)), Stays, "the server gave it to another since");
    assert_eq!(back(Lease, Holder::Here(Manual)), Stays);
}
