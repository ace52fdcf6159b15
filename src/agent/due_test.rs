use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn vm(n: u32) -> Key {
    format!("libvirt-{n}").into()
}

fn guest(n: u32) -> Task {
    Task::Guest(vm(n))
}

#[test]
fn each_thing_is_due_once_at_its_earliest_time() {
    let (mut due, now) = (Due::default(), Instant::now());
    assert_eq!((due.next(), due.pop(now)), (None, None));
    due.put(guest(1), now + SECOND);
    due.put(guest(1), now + 2 * SECOND);
    due.put(guest(2), now + SOON);
    due.put(guest(1), now + SOON / 2);
    assert_eq!(due.next(), Some(now + SOON / 2));
    assert_eq!(due.pop(now), None);
    assert_eq!(due.pop(now + SOON), Some(guest(1)));
    assert_eq!(due.pop(now + SOON), Some(guest(2)));
    assert_eq!((due.pop(now + 9 * SECOND), due.next()), (None, None));
    due.put(guest(1), now);
    due.drop(&guest(1));
    due.drop(&guest(1));
    assert_eq!(due.next(), None);
}

#[test]
fn a_crowd_is_one_look_at_all() {
    let (mut due, now) = (Due::default(), Instant::now());
    (0..31).for_each(|n| due.put(guest(n), now));
    due.put(guest(40), now + SECOND);
    due.put(Task::Speaker, now);
    assert!(!due.crowd(now));
    due.put(guest(31), now);
    assert!(due.crowd(now));
    assert_eq!((due.pop(now), due.pop(now)), (Some(Task::Speaker), None));
    assert_eq!(due.next(), Some(now + SECOND), "who is not due yet waits on");
}

#[test]
fn an_arrival_overtakes_what_waits() {
    let (mut due, now) = (Due::default(), Instant::now());
    due.put(Task::Everything, now - SECOND);
    due.put(guest(1), now - 2 * SECOND);
    due.put(Task::Arrived(vm(2)), now);
    due.put(Task::Arrived(vm(3)), now + SECOND);
    due.put(Task::Host, now + SECOND);
    assert_eq!(due.pop(now), Some(Task::Arrived(vm(2))));
    assert_eq!(due.pop(now), Some(guest(1)));
    assert_eq!(due.pop(now), Some(Task::Everything));
    assert_eq!(due.pop(now), None);
    due.put(Task::Arrived(vm(2)), now - SECOND);
    assert_eq!(due.pop(now + SECOND), Some(Task::Host), "without table local nobody arrives");
}

#[test]
fn a_claim_stands_a_second_and_a_loss_not() {
    let (mut patience, now) = (Patience::default(), Instant::now());
    assert_eq!(patience.when(&guest(1), Why::Lost, now), now + SOON);
    assert_eq!(patience.when(&guest(1), Why::Taken, now), now + HOLD);
    assert_eq!(patience.when(&guest(1), Why::Moved, now), now + HOLD);
    let red = Task::Network("red".parse().unwrap());
    assert_eq!(patience.when(&red, Why::Lost, now), now + BUILDING);
    assert_eq!(patience.when(&red, Why::Gone, now), now + PARTING);
}

#[test]
fn what_has_just_arrived_is_taken_back_at_once_but_not_for_ever() {
    let (mut patience, start) = (Patience::default(), Instant::now());
    patience.arrived(&vm(1), start);
    let mut now = start;
    while now < start + FRESH_MOST {
        assert_eq!(patience.when(&guest(1), Why::Taken, now), now + SOON);
        assert!(!patience.mended(&guest(1), now));
        now += 4 * SECOND;
    }
    assert_eq!(patience.when(&guest(1), Why::Taken, now), now + HOLD);
    assert!(patience.fresh.is_empty());

    patience.arrived(&vm(2), start);
    let later = start + FRESH;
    assert_eq!(patience.when(&guest(2), Why::Taken, later), later + HOLD, "it was left in peace");
}

#[test]
fn what_is_taken_again_and_again_is_taken_back_ever_more_seldom_and_told_once() {
    let (mut patience, start) = (Patience::default(), Instant::now());
    let mut now = start;
    let mut waits = Vec::new();
    let mut told = 0;
    for _ in 0..10 {
        let at = patience.when(&guest(1), Why::Taken, now);
        waits.push((at - now).as_secs());
        now = at;
        told += u32::from(patience.mended(&guest(1), now));
    }
    assert_eq!(waits, [1, 1, 2, 4, 8, 16, 32, 64, 128, 180]);
    assert_eq!(told, 1);
    assert_eq!(patience.when(&guest(2), Why::Lost, now), now + SOON, "each for itself");
    now += QUIET * LONGEST + SECOND;
    assert_eq!(patience.when(&guest(1), Why::Taken, now), now + HOLD, "forgiven");
    assert!(patience.troubles.is_empty());
}

/// Two hosts with one MAC: each hears of the other's turn, and takes its own when its patience says so.
#[test]
fn two_agents_stay_below_what_frr_calls_a_duplicate() {
    let (mut hosts, start) = ([Patience::default(), Patience::default()], Instant::now());
    let mut moves = Vec::new();
    let (mut now, mut turn) = (start, 0);
    while now < start + 4 * 3600 * SECOND {
        let heard = now + SECOND / 20;
        // The FDB entry, and then the neighbour.
        let at = hosts[turn].when(&guest(1), Why::Taken, heard);
        assert!(hosts[turn].when(&guest(1), Why::Taken, heard + SECOND / 100) >= at);
        now = at;
        hosts[turn].mended(&guest(1), now);
        moves.push(now);
        turn = 1 - turn;
    }
    let calm: Vec<_> = moves.iter().skip_while(|at| **at < start + 300 * SECOND).collect();
    assert!(calm.len() > 100, "the guests are not left alone either: {}", calm.len());
    for five in calm.windows(5) {
        assert!(*five[4] - *five[0] > 180 * SECOND, "{:?}", *five[4] - *five[0]);
    }
    for own in calm.windows(3) {
        assert!(*own[2] - *own[0] >= 128 * SECOND, "{:?}", *own[2] - *own[0]);
    }
}

#[test]
fn a_guest_that_was_moved_is_given_its_second_though_it_has_just_arrived() {
    let (mut patience, now) = (Patience::default(), Instant::now());
    patience.arrived(&vm(1), now);
    assert_eq!(patience.when(&guest(1), Why::Moved, now), now + HOLD);
    let mut due = Due::default();
    due.put(guest(1), now + SOON);
    due.postpone(guest(1), now + HOLD);
    assert_eq!((due.pop(now + SOON), due.next()), (None, Some(now + HOLD)));
}

#[test]
fn a_loss_that_nobody_took_is_no_duplicate() {
    let (mut patience, now) = (Patience::default(), Instant::now());
    for _ in 0..9 {
        patience.when(&guest(1), Why::Lost, now);
        assert!(!patience.mended(&guest(1), now));
    }
}

#[test]
fn what_fails_is_tried_again_for_a_minute() {
    let (mut patience, start) = (Patience::default(), Instant::now());
    let mut now = start;
    while let Some(at) = patience.failed(&Task::Everything, now) {
        now = at;
    }
    assert_eq!((now - start).as_secs(), 1 + 2 + 4 + 8 + 16 + 32);
    assert_eq!(
        patience.failed(&Task::Everything, now),
        Some(now + SECOND),
        "it changed, and is tried for a minute again"
    );
    assert_eq!(patience.failed(&Task::Everything, now), Some(now + SECOND), "a look out of turn is no try");
    assert_eq!(patience.when(&Task::Everything, Why::Lost, now), now + SECOND, "nor does it bring one");
    patience.worked(&Task::Everything);
    assert_eq!(patience.when(&Task::Everything, Why::Lost, now), now + SOON);
    now += SECOND;
    assert_eq!(patience.failed(&Task::Everything, now), Some(now + SECOND));
}

#[test]
fn the_speaker_is_asked_five_times_at_most() {
    let (mut unsure, start) = (Unsure::default(), Instant::now());
    assert_eq!(unsure.next(), None);
    unsure.put(&vm(1), start);
    unsure.put(&vm(2), start + Duration::from_millis(50));
    unsure.put(&vm(3), start + SECOND);
    let first = start + Duration::from_millis(500);
    assert_eq!(unsure.next(), Some(first));
    assert_eq!(unsure.due(first), [vm(1), vm(2)], "two in one question");
    assert!(!unsure.answered(&vm(2), true));
    let mut asked = Vec::new();
    let mut in_vain = false;
    while let Some((since, _)) = unsure.since.get(&vm(1)) {
        assert!(!in_vain);
        asked.push((at(unsure.since.get(&vm(1)).unwrap()) - *since).as_millis());
        in_vain = unsure.answered(&vm(1), false);
    }
    assert_eq!(asked, [500, 1000, 2000, 4000, 8000]);
    assert!(in_vain);
    unsure.drop(&vm(3));
    assert_eq!(unsure.next(), None);
}

#[test]
fn how_soon_it_is_advertised_is_asked_early_and_only_where_it_is_wanted() {
    let (mut unsure, start) = (Unsure::default(), Instant::now());
    unsure.put(&vm(1), start);
    unsure.put_early(&vm(2), start);
    assert!(!unsure.is_early(&vm(1)) && unsure.is_early(&vm(2)) && !unsure.is_early(&vm(3)));
    let mut asked = Vec::new();
    while unsure.is_early(&vm(2)) {
        let next = unsure.next().unwrap();
        asked.push((next - start).as_millis());
        assert!(unsure.due(next).contains(&vm(2)));
        assert!(!unsure.answered(&vm(2), false), "an early question is never the last");
    }
    assert_eq!(asked, [25, 60, 120, 250]);
    assert_eq!(unsure.next(), Some(start + SECOND / 2), "then it is one of all");
    assert!(!unsure.answered(&vm(2), true) && !unsure.answered(&vm(1), true));
    assert_eq!(unsure.next(), None);
    unsure.put_early(&vm(2), start);
    unsure.not_early(&vm(2));
    unsure.not_early(&vm(3));
    assert_eq!(unsure.next(), Some(start + SECOND / 2));
    // What is mended meanwhile is asked for as what is mended.
    unsure.put_early(&vm(2), start);
    unsure.put(&vm(2), start + SECOND);
    assert!(!unsure.is_early(&vm(2)));
}
