"""Account files as other programs write them."""

from typing import Any

from entrypoint.account.model import new_private_key, public_key
from tests.fakes.warp_api import EDGE_KEY, device_object

PRIVATE = new_private_key()
WGCF_PROFILE = f"""[Interface]
PrivateKey = {PRIVATE}
Address = 172.16.0.2/32, 2606:4700:110:8abc::2/128
DNS = 1.1.1.1, 1.0.0.1, 2606:4700:4700::1111, 2606:4700:4700::1001
MTU = 1280
[Peer]
PublicKey = {EDGE_KEY}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = engage.cloudflareclient.com:2408
"""
PLAIN = f"""# made by hand
[interface]
privatekey={PRIVATE}
address=172.16.0.2/32
Address = 2606:4700:110:8abc::2/128   # two lines
PostUp = rm -rf /
PostUp = ip -4 rule add lookup main
PostDown = touch /tmp/down
PostDown = touch /tmp/down6

[Peer]
publickey = {EDGE_KEY}
Endpoint = [2606:4700:d0::a29f:c001]:500
# Reserved = 1, 2, 3
"""
FLAT: dict[str, Any] = {
    "endpoint": {"v4": "162.159.192.7", "v6": "[2606:4700:d0::a29f:c007]"},
    "reserved_dec": [1, 2, 3],
    "reserved_hex": "0x010203",
    "reserved_str": "AQID",
    "private_key": PRIVATE,
    "public_key": EDGE_KEY,
    "v4": "172.16.0.2",
    "v6": "2606:4700:110:8abc::2",
}
LINES = f"""device_id: 11111111-2222-4333-8444-555555555555
token: 99999999-8888-4777-8666-555555555555
account_id: aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee
account_type: unlimited
license: Ab12Cd34-Ef56Gh78-Ij90Kl12
private_key: {PRIVATE}
public_key: {EDGE_KEY}
client_id: AQID
reserved: [ 1, 2, 3 ]
v4: 172.16.0.2
v6: 2606:4700:110:8abc::2
endpoint: engage.cloudflareclient.com:2408
"""
DEVICE = device_object(public_key(PRIVATE)) | {"private_key": PRIVATE}
