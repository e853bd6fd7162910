//! The HTTP server around the routes.

use std::net::TcpListener;

use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};

use crate::access;
use crate::routes;
use crate::state::AppState;

/// Serves `listener` until the state's shutdown is requested and requests in flight have been answered.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve(listener: TcpListener, state: web::Data<AppState>) -> std::io::Result<()> {
    let settings = state.settings.clone();
    let (shutdown, switches) = (state.shutdown.clone(), settings.webservices);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .wrap(from_fn(access::observe))
            .configure(|config| routes::configure(config, switches))
    })
    .workers(settings.workers)
    .max_connections(settings.max_connections.div_ceil(settings.workers))
    .keep_alive(settings.keep_alive)
    .client_request_timeout(settings.head_timeout)
    .client_disconnect_timeout(settings.head_timeout)
    .shutdown_timeout(settings.shutdown_timeout.as_secs())
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    let stopper = tokio::spawn(async move {
        shutdown.requested().await;
        handle.stop(true).await;
    });
    let result = server.await;
    stopper.abort();
    result
}
