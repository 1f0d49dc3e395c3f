"""An OpenAI-compatible gateway: requests go to the version that an alias holds, and are counted for it."""

from perdure.web.gateway.app import beside, create_gateway_app
from perdure.web.gateway.gateway import Gateway
from perdure.web.gateway.keys import GENERATE
from perdure.web.gateway.settings import GatewaySettings, read_settings

__all__ = ["GENERATE", "Gateway", "GatewaySettings", "beside", "create_gateway_app", "read_settings"]
