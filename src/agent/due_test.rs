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
fn an_arrival_overtakes_what_waits() {
    let (mut due, now) = (Due::default(), Instant::now());
    due.put(Task::Everything, now - SECOND);
    due.put(guest(1), now - 2 * SECOND);
    due.put(Task::Arrived(vm(2)), now);
    due.put(Task::Arrived(vm(3)), now + SECOND);
    assert_eq!(due.pop(now), Some(Task::Arrived(vm(2))));
    assert_eq!(due.pop(now), Some(guest(1)));
    assert_eq!(due.pop(now), Some(Task::Everything));
    assert_eq!(due.pop(now), None);
}

#[test]
fn a_claim_stands_a_second_and_a_loss_not() {
    let (mut patience, now) = (Patience::default(), Instant::now());
    assert_eq!(patience.when(&guest(1), Why::Lost, now), now + SOON);
    assert_eq!(patience.when(&guest(1), Why::Taken, now), now + HOLD);
    assert_eq!(patience.when(&Task::Network("red".parse().unwrap()), Why::Gone, now), now + PARTING);
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
    assert_eq!(waits, [1, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(told, 1);
    assert_eq!(patience.when(&guest(2), Why::Lost, now), now + SOON, "each for itself");
    now += QUIET + SECOND;
    assert_eq!(patience.when(&guest(1), Why::Taken, now), now + HOLD, "forgiven");
    assert!(patience.troubles.is_empty());
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
