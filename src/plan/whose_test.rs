//! The whole table: each source against each holder.

use super::{Answer, Case, Claim, Holder, Verdict, judge};
use crate::model::Source::{self, Container, DhcpHost, Fabric, Lease, Manual, Metadata, Neighbour, Nwfilter};
use Verdict::{Ask, Its, Stays};

const DECLARED: [Source; 5] = [Manual, Metadata, Nwfilter, Container, DhcpHost];
const WORDS: [Source; 2] = [Neighbour, Fabric];

fn case(source: Source, holder: Holder) -> Case {
    Case { source, claim: Claim::Uses, had_it: false, holder, answer: Answer::NotAsked }
}

fn holds(source: Source, holder: Holder, verdict: Verdict) {
    assert_eq!(judge(&case(source, holder)), verdict, "{source:?} {holder:?}");
    let answered = |answer| judge(&Case { answer, ..case(source, holder) });
    let expected = if verdict == Ask { (Stays, Its) } else { (verdict, verdict) };
    assert_eq!((answered(Answer::Yes), answered(Answer::No)), expected, "{source:?} {holder:?}");
    // Whoever asks whether it is free takes it from nobody, whatever it had.
    let asks = Case { claim: Claim::Asks, had_it: true, answer: Answer::No, ..case(source, holder) };
    assert_eq!(judge(&asks), if holder == Holder::Nobody { Its } else { Stays }, "{source:?} {holder:?}");
}

#[test]
fn whose_it_is_by_who_says_so() {
    use Holder::{Here, Itself, Nobody, Operator, Vtep};
    let here = |sources: &[Source]| sources.iter().map(|source| Here(*source)).collect::<Vec<_>>();
    for (holders, by_declared, by_lease, by_word) in [
        (vec![Nobody], Its, Its, Its),
        (vec![Itself], Stays, Its, Stays),
        (here(&DECLARED), Ask, Stays, Stays),
        (here(&[Lease]), Its, Ask, Stays),
        (here(&WORDS), Its, Its, Ask),
        (vec![Vtep], Ask, Ask, Ask),
        (vec![Operator], Stays, Stays, Stays),
    ] {
        for holder in holders {
            DECLARED.into_iter().for_each(|source| holds(source, holder, by_declared));
            holds(Lease, holder, by_lease);
            WORDS.into_iter().for_each(|source| holds(source, holder, by_word));
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
