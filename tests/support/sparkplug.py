"""An edge node of Sparkplug B as its clients write it: payloads with the sequence kept."""

from typing import Any

from hub.decode.sparkplug_payload import DataType, payload_class

T0_MS = 1_795_376_000_000
_FIELDS = {
    DataType.INT64: "long_value", DataType.UINT64: "long_value", DataType.DATE_TIME: "long_value",
    DataType.FLOAT: "float_value", DataType.DOUBLE: "double_value", DataType.BOOLEAN: "boolean_value",
    DataType.STRING: "string_value", DataType.TEXT: "string_value", DataType.UUID: "string_value",
}  # fmt: skip


class EdgeNode:
    """Makes the payloads of one node; each takes the next number."""

    def __init__(self, bd_seq: int = 0) -> None:
        self.bd_seq = bd_seq
        self.seq = 0

    def birth(self, *metrics: dict[str, Any]) -> bytes:
        """Return NBIRTH."""
        self.seq = 0
        controls = (
            {"name": "bdSeq", "datatype": DataType.UINT64, "value": self.bd_seq},
            {"name": "Node Control/Rebirth", "datatype": DataType.BOOLEAN, "value": False},
        )
        return self.data(*controls, *metrics)

    def data(self, *metrics: dict[str, Any], **fields: Any) -> bytes:
        """Return the payload of any message with a number."""
        seq, self.seq = self.seq, (self.seq + 1) % 256
        return payload(*metrics, **{"seq": seq, "timestamp": T0_MS, **fields})

    def lose(self, count: int = 1) -> None:
        """Let messages be lost."""
        self.seq = (self.seq + count) % 256

    def death(self) -> bytes:
        """Return NDEATH."""
        return payload({"name": "bdSeq", "datatype": DataType.UINT64, "value": self.bd_seq}, timestamp=T0_MS)


def payload(*metrics: dict[str, Any], **fields: Any) -> bytes:
    """Return a payload; a metric is its fields, where ``value`` goes into the field of its type, or ``field``."""
    message = payload_class()(**fields)
    for described in metrics:
        of = dict(described)
        metric = message.metrics.add()
        properties = of.pop("properties", {})
        if "name" in of:
            metric.name = of.pop("name").encode()
        field = of.pop("field", None)
        if "value" in of:
            value = of.pop("value")
            field = field or _FIELDS.get(of.get("datatype", DataType.UNKNOWN), "int_value")
            setattr(metric, field, value.encode() if isinstance(value, str) else value)
        for name, value in of.items():
            setattr(metric, name, value)
        for key, value in properties.items():
            metric.properties.keys.append(key.encode())
            entry = metric.properties.values.add()
            if isinstance(value, str):
                entry.type, entry.string_value = DataType.STRING, value.encode()
            else:
                entry.type, entry.int_value = DataType.INT32, value
    return bytes(message.SerializeToString())
