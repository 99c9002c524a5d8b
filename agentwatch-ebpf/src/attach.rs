//! One program under several names.

/// Makes a program for each name, all of which run `$run` at the same tracepoint.
macro_rules! attached_as {
    ($hook:literal, $run:expr, $($name:ident)+) => {$(
        #[btf_tracepoint(function = $hook)]
        pub fn $name(ctx: BtfTracePointContext) -> i32 {
            $run(&ctx)
        }
    )+};
}
