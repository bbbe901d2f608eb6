"""The Shadowsocks server as data: pure, without I/O, independent of WARP and Linux."""
