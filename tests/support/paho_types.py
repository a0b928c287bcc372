"""Parts of Eclipse Paho without annotations, under names that the type checker lets be called."""

from typing import Any

from paho.mqtt import properties, reasoncodes

PahoProperties: Any = properties.Properties
VariableByteIntegers: Any = properties.VariableByteIntegers
PahoReasonCode: Any = reasoncodes.ReasonCode
