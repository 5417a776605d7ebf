//! `cluster_test!`: one test on two grounds.
//!
//! `cluster_test!(a_fact_in_the_name, async |w: &World| { … });` makes `….::a_fact_in_the_name::lab`, which every
//! `cargo test` runs, and `….::real`, which is ignored unless asked for, so that without a cluster it is seen to be
//! skipped. On the real cluster it runs beside others (up to four at once); `cluster_test!(exclusive a_fact, …)` runs
//! alone there: nodes, API server, default class. `cluster_test!(real "why" a_fact, …)` has no lab, and says why;
//! `cluster_test!(exclusive real "why" …)` is both. `cluster_test!(lab "why" …)` runs in the lab only: the real one would
//! add nothing but time.

macro_rules! cluster_test {
    (exclusive real $why:literal $name:ident, $body:expr $(,)?) => {
        $crate::world::cluster_test!(@real $name, Exclusive, $why, $body);
    };
    (real $why:literal $name:ident, $body:expr $(,)?) => {
        $crate::world::cluster_test!(@real $name, Shared, $why, $body);
    };
    (lab $why:literal $name:ident, $body:expr $(,)?) => {
        mod $name {
            use super::*;

            /// Why it does not run on the real cluster.
            const _: &str = $why;

            #[test]
            fn lab() {
                let (place, sharing) = ($crate::world::Where::Lab, $crate::world::Sharing::Shared);
                $crate::world::run(stringify!($name), place, sharing, $body);
            }
        }
    };
    (exclusive $name:ident, $body:expr $(,)?) => {
        $crate::world::cluster_test!(@both $name, Exclusive, $body);
    };
    ($name:ident, $body:expr $(,)?) => {
        $crate::world::cluster_test!(@both $name, Shared, $body);
    };
    (@both $name:ident, $sharing:ident, $body:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn lab() {
                let (place, sharing) = ($crate::world::Where::Lab, $crate::world::Sharing::$sharing);
                $crate::world::run(stringify!($name), place, sharing, $body);
            }

            #[test]
            #[ignore = "needs the real cluster: PVMIGRATE_TEST_CLUSTER=<path of the cluster script> cargo test -- --ignored real"]
            fn real() {
                let (place, sharing) = ($crate::world::Where::Real, $crate::world::Sharing::$sharing);
                $crate::world::run(stringify!($name), place, sharing, $body);
            }
        }
    };
    (@real $name:ident, $sharing:ident, $why:literal, $body:expr) => {
        mod $name {
            use super::*;

            /// Why it does not run on the lab.
            const _: &str = $why;

            #[test]
            #[ignore = "needs the real cluster: PVMIGRATE_TEST_CLUSTER=<path of the cluster script> cargo test -- --ignored real"]
            fn real() {
                let (place, sharing) = ($crate::world::Where::Real, $crate::world::Sharing::$sharing);
                $crate::world::run(stringify!($name), place, sharing, $body);
            }
        }
    };
}
pub(crate) use cluster_test;
