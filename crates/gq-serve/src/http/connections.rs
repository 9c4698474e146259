//! Connections: as many as may be, each within its times, until the server ends.

use super::error::ApiError;
use super::routes::App;
use super::stalled::Stalled;
use crate::engine::add;
use axum::Router;
use axum::http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{interval, sleep, timeout};

/// How often the server looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// For what is left when answers were given up.
const LAST: Duration = Duration::from_secs(2);
/// Bytes of a request's head.
const HEAD: usize = 64 << 10;
/// For telling a connection that there are too many.
const REFUSAL: Duration = Duration::from_secs(1);

/// Takes connections until `stop` says so, then waits for the answers that are under way. Gives whether all were finished.
pub(super) async fn run(
    listener: TcpListener,
    router: Router,
    app: Arc<App>,
    stop: &dyn Fn() -> bool,
) -> bool {
    let graceful = GracefulShutdown::new();
    let mut look = interval(LOOK);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => take(stream, &router, &app, &graceful),
                // Out of file descriptors, or a connection that was gone at once.
                Err(_) => sleep(LOOK).await,
            },
            _ = look.tick() => if stop() { break },
        }
    }
    drop(listener);
    app.engine.close();
    let finished = timeout(app.limits.drain, graceful.shutdown()).await.is_ok();
    if !finished {
        app.engine.abort();
        let mut left = LAST;
        while app.connections.load(Ordering::Acquire) > 0 && !left.is_zero() {
            sleep(LOOK).await;
            left = left.saturating_sub(LOOK);
        }
    }
    finished
}

/// Counts a connection as long as it lives.
struct Counted(Arc<App>);

impl Counted {
    fn new(app: &Arc<App>) -> Option<Counted> {
        let room = |open: usize| (open < app.limits.connections).then_some(open + 1);
        app.connections.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).ok()?;
        Some(Counted(Arc::clone(app)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

fn take(stream: TcpStream, router: &Router, app: &Arc<App>, graceful: &GracefulShutdown) {
    let Some(counted) = Counted::new(app) else {
        add(&app.counts.refused, 1);
        tokio::spawn(timeout(REFUSAL, refuse(stream, app.limits.connections)));
        return;
    };
    // Chunks of a stream are small, and each is waited for.
    let _ = stream.set_nodelay(true);
    let idle = app.limits.idle;
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(Stalled::new(stream, idle)), TowerToHyperService::new(router.clone()));
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        // What goes wrong with a connection ends it, and nothing else.
        let _ = connection.await;
        drop(counted);
    });
}

/// Says that there are too many connections, and reads what comes until it is closed, so that the answer arrives.
async fn refuse(mut stream: TcpStream, limit: usize) {
    let message = format!("{limit} connections are open, and no more may be");
    let body = ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, message, 1).body().to_string();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    if stream.write_all((head + &body).as_bytes()).await.is_ok() && stream.shutdown().await.is_ok() {
        let mut rest = [0; 4096];
        while matches!(stream.read(&mut rest).await, Ok(1..)) {}
    }
}
