"""The accounts of Host and Target: what happened, chained, signed and shown.

Host and Target each keep them in the database that holds what the records speak of,
so that a step and its record are one transaction (the paper's Table 4).
"""

from carnet.audit.chain import AuditRecord, append, append_all, audit_table, read
from carnet.audit.heads import heads_table

__all__ = ["AuditRecord", "append", "append_all", "audit_table", "heads_table", "read"]
