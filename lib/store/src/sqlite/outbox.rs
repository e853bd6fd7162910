//! Messages that wait for the broker.

use async_trait::async_trait;

use super::EnginesDb;
use super::failure::damaged;
use super::sql::collect;
use super::writer::transact;
use crate::commit::Outgoing;
use crate::error::StoreError;
use crate::outbox::{Outbox, OutboxEntry};

#[async_trait]
impl Outbox for EnginesDb {
    async fn pending(&self, limit: u32) -> Result<Vec<OutboxEntry>, StoreError> {
        self.read(move |connection| {
            let sql = "SELECT n, exchange, routing_key, message_id, content_type, headers, body FROM outbox \
                       ORDER BY n LIMIT ?";
            collect(connection.prepare_cached(sql)?.query([limit])?, |row| {
                let number = row.get(0)?;
                let headers = row.get_ref(5)?.as_str().unwrap_or_default();
                let headers = serde_json::from_str(headers).map_err(|error| damaged("outbox", number, &error))?;
                let message = Outgoing {
                    exchange: row.get(1)?,
                    routing_key: row.get(2)?,
                    message_id: row.get(3)?,
                    content_type: row.get(4)?,
                    headers,
                    body: row.get(6)?,
                };
                Ok(OutboxEntry { number, message })
            })
        })
        .await
    }

    async fn done(&self, numbers: &[u64]) -> Result<(), StoreError> {
        if numbers.is_empty() {
            return Ok(());
        }
        let numbers = numbers.to_vec();
        self.writer()?
            .call(move |connection, _| {
                transact(connection, |transaction| {
                    let mut remove = transaction.prepare_cached("DELETE FROM outbox WHERE n = ?")?;
                    for number in numbers {
                        remove.execute([number])?;
                    }
                    Ok(())
                })
            })
            .await
    }
}
