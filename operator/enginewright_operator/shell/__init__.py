"""What touches the world: watches, the queue, reads, writes, the process. It decides nothing about models."""
