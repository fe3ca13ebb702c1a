//! OTP's group `abnormal_termination`: a panic, an error and a kill are all abnormal.

use crate::support::*;

const WAYS: [How; 3] = [How::Abnormal, How::Failing, How::Kill];

#[tokio::test(start_paused = true)]
async fn permanent_abnormal() {
    for how in WAYS {
        let child1 = child("child1");
        let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![]).await;
        sup.add(child1.restart(Restart::Permanent)).await;
        sup.terminate(&child1, how).await;
        assert_eq!(sup.which(), ["child1 running"], "{how:?}");
        assert_eq!(sup.counts(), [1, 1, 0, 1]);
        assert_eq!(child1.pid().await, Some(2));
        sup.stop_well().await;
    }
}

#[tokio::test(start_paused = true)]
async fn transient_abnormal() {
    for how in WAYS {
        let child1 = child("child1");
        let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![]).await;
        sup.add(child1.restart(Restart::Transient)).await;
        sup.terminate(&child1, how).await;
        assert_eq!(sup.which(), ["child1 running"], "{how:?}");
        assert_eq!(sup.counts(), [1, 1, 0, 1]);
        assert_eq!(child1.pid().await, Some(2));
        sup.stop_well().await;
    }
}

#[tokio::test(start_paused = true)]
async fn temporary_abnormal() {
    for how in WAYS {
        let child1 = child("child1");
        let sup = flags(Strategy::OneForOne, 2, 3600).start(vec![]).await;
        sup.add(child1.restart(Restart::Temporary)).await;
        sup.terminate(&child1, how).await;
        pass(secs(60)).await;
        assert_eq!((sup.which(), sup.counts()), (vec![], [0; 4]), "{how:?}");
        assert_eq!((child1.starts(), child1.living()), (1, 0));
        sup.stop_well().await;
    }
}
