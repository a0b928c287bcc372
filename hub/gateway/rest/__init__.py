"""REST, declared as one table: routes, access, OpenAPI and the reference are made from it.

Owns: the table. Each module beside it holds one subject: its questions, its answers, and the few lines that answer.
Place: above `endpoint`, below `http`, which turns requests into calls and errors into answers.
"""

from hub.gateway.endpoint import Endpoint
from hub.gateway.rest import (
    audit,
    batches,
    certificates,
    change_log,
    children,
    claims,
    commands,
    devices,
    enrolment,
    erasure,
    imports,
    metadata,
    metrics,
    quarantine,
    readings,
    sign_in,
    states,
    tokens,
    upkeep,
    users,
    watchers,
)

ENDPOINTS: tuple[Endpoint, ...] = (
    *upkeep.ENDPOINTS,
    *watchers.ENDPOINTS,
    *metrics.ENDPOINTS,
    *devices.ENDPOINTS,
    *metadata.ENDPOINTS,
    *enrolment.ENDPOINTS,
    *erasure.ENDPOINTS,
    *claims.ENDPOINTS,
    *children.ENDPOINTS,
    *commands.ENDPOINTS,
    *states.ENDPOINTS,
    *readings.ENDPOINTS,
    *imports.ENDPOINTS,
    *batches.ENDPOINTS,
    *audit.ENDPOINTS,
    *quarantine.ENDPOINTS,
    *tokens.ENDPOINTS,
    *certificates.ENDPOINTS,
    *users.ENDPOINTS,
    *sign_in.ENDPOINTS,
    *change_log.ENDPOINTS,
)
