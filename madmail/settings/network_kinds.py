"""Kinds of settings that name hosts, addresses and paths of the network."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from madmail.settings.kinds import Address, Kind, Wrong


class Domain(Kind):
    """A mail domain: a host name, or an IP literal with or without brackets."""

    name = 'domain'
    expected = 'a domain such as chat.example.org, or an IP address'
    bracketed = True
    LABEL = re.compile(r'(?!-)[a-z0-9_-]{1,63}(?<!-)')

    def check(self, value: object) -> object:
        if not isinstance(value, str):
            raise Wrong(self.expected)
        text = value.strip().rstrip('.').lower()
        bare = text[1:-1] if text.startswith('[') and text.endswith(']') else text
        try:
            return str(ipaddress.ip_address(bare.removeprefix('ipv6:')))
        except ValueError:
            pass
        if not text.isascii():
            try:
                text = text.encode('idna').decode()
            except UnicodeError:
                raise Wrong(self.expected) from None
        labels = text.split('.')
        # a last label of digits is a mistyped IP address, never a domain (RFC 3696 2)
        if (
            len(text) > 253
            or labels[-1].isdigit()
            or not all(self.LABEL.fullmatch(label) for label in labels)
        ):
            raise Wrong(self.expected)
        return text


class Hostname(Domain):
    """The name of a host, or nothing."""

    name = 'host name'
    expected = 'the name of a host such as mail.example.org'
    bracketed = False

    def check(self, value: object) -> object:
        if value == '':
            return ''
        name = super().check(value)
        try:
            ipaddress.ip_address(str(name))
        except ValueError:
            return name
        raise Wrong(self.expected)


class Addresses(Kind):
    """Where to listen: a tuple of `Address`, empty = nowhere."""

    name = 'list of host:port'
    many = True

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"host:port such as 0.0.0.0:{self.port} or '[::]:{self.port}' (IPv6 in quotes)"

    def parse(self, text: str) -> object:
        return tuple(self._one(part.strip()) for part in text.split(',')) if text.strip() else ()

    def check(self, value: object) -> object:
        if isinstance(value, str):
            return self.parse(value)
        if isinstance(value, Address):
            return (value,)
        if not isinstance(value, (list, tuple)):
            raise Wrong(self.expected)
        addresses = tuple(v if isinstance(v, Address) else self._one(v) for v in value)
        if len({a for a in addresses if a.port}) < len([a for a in addresses if a.port]):
            raise Wrong('each address only once')
        return addresses

    def _one(self, text: object) -> Address:
        if not isinstance(text, str):
            raise Wrong(self.expected)
        match = re.fullmatch(r'(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:\s]*))(?::([0-9]{1,5}))?', text)
        if not match:
            raise Wrong(self.expected)
        host = match[1] or match[2] or '0.0.0.0'
        port = int(match[3]) if match[3] else self.port
        if host.isascii() and host.isdigit() and not match[3]:
            host, port = '0.0.0.0', int(host)
        try:
            if host == '*':
                host = '0.0.0.0'
            elif host != 'localhost':
                host = str(ipaddress.ip_address(host))
        except ValueError:
            raise Wrong(self.expected) from None
        if not 0 <= port <= 65535:
            raise Wrong('a port up to 65535')
        return Address(host, port)

    def show(self, value: object) -> str:
        assert isinstance(value, tuple)
        shown = [f"'{a}'" if ':' in a.host else str(a) for a in value]
        return f'[{", ".join(shown)}]'


class Servers(Addresses):
    """Where to ask: a tuple of `Address` of other programs, empty = nobody named."""

    def __init__(self) -> None:
        super().__init__(53)

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"the IP address of a server such as 192.0.2.53 or '[::1]:{self.port}'"

    def _one(self, text: object) -> Address:
        address = super()._one(text)
        if address.host in ('0.0.0.0', '::') or not address.port:
            raise Wrong(self.expected)
        return address


class Transports(Kind):
    """Some of https, http and smtp, as a tuple in the given order."""

    name = 'transports'
    expected = 'a list of some of https, http and smtp'
    many = True
    KNOWN = ('https', 'http', 'smtp')

    def parse(self, text: str) -> object:
        return self.check([part.strip() for part in text.split(',')])

    def check(self, value: object) -> object:
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, (list, tuple)) or not words:
            raise Wrong(self.expected)
        if any(word not in self.KNOWN for word in words) or len(set(words)) < len(words):
            raise Wrong(self.expected)
        return tuple(words)

    def show(self, value: object) -> str:
        assert isinstance(value, tuple)
        return f'[{", ".join(value)}]'


class Url(Kind):
    """A word, or a URL of one of some schemes."""

    name = 'URL'

    def __init__(self, word: str, *schemes: str) -> None:
        self.word, self.schemes = word, schemes

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f'{self.word} or {" or ".join(f"{scheme}://…" for scheme in self.schemes)}'

    def check(self, value: object) -> object:
        if value == self.word:
            return value
        if isinstance(value, str):
            scheme, mark, rest = value.partition('://')
            if mark and rest and scheme in self.schemes:
                return value
        raise Wrong(self.expected)


class HttpUrl(Kind):
    """Where a request goes: scheme, host, perhaps port and path, nothing else."""

    name = 'URL'
    expected = 'a URL such as https://push.example.org/notify'
    URL = re.compile(
        r'https?://(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?'
        r'(?:/[A-Za-z0-9._~!$&()*+,;=:@%/-]{0,1000})?'
    )

    def check(self, value: object) -> object:
        if not isinstance(value, str) or not self.URL.fullmatch(value):
            raise Wrong(self.expected)
        try:
            if urlsplit(value).port == 0:
                raise Wrong(self.expected)
        except ValueError:
            raise Wrong(self.expected) from None
        return value


class Directory(HttpUrl):
    """An authority for certificates: a word, or the URL of its ACME directory."""

    name = 'ACME directory'
    WORDS = ('letsencrypt', 'staging')
    expected = 'letsencrypt, staging or the URL of an ACME directory, with https'

    def check(self, value: object) -> object:
        if value in self.WORDS:
            return value
        if not str(super().check(value)).startswith('https://'):
            raise Wrong(self.expected)
        return value


class Email(Kind):
    """An address that people read, or nothing."""

    name = 'address'
    expected = 'an address such as admin@example.org'
    ADDRESS = re.compile(r'[A-Za-z0-9._+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z0-9-]{2,63}')

    def check(self, value: object) -> object:
        if value == '':
            return ''
        if not isinstance(value, str) or not self.ADDRESS.fullmatch(value):
            raise Wrong(self.expected)
        return value


class Base64(Kind):
    """A key in base64url, or nothing."""

    name = 'key'
    expected = 'a key in base64url'
    TEXT = re.compile(r'[A-Za-z0-9_-]{0,1024}={0,2}')

    def check(self, value: object) -> object:
        if not isinstance(value, str) or not self.TEXT.fullmatch(value):
            raise Wrong(self.expected)
        return value.rstrip('=')


class RelayUrl(HttpUrl):
    """Scheme, host and perhaps port of what clients connect to, or nothing."""

    expected = 'a URL such as https://chat.example.org or http://203.0.113.5:3340, without a path'

    def check(self, value: object) -> object:
        if value == '':
            return ''
        if urlsplit(str(super().check(value))).path not in ('', '/'):
            raise Wrong(self.expected)
        return value


class ProxyPassword(Kind):
    """What opens the Shadowsocks proxy; '' where there is none yet."""

    name = 'password'
    LEAST, MOST = 8, 255  # characters
    expected = f'{LEAST} to {MOST} characters on one line'

    def check(self, value: object) -> object:
        if not isinstance(value, str) or not value.isprintable():
            raise Wrong(self.expected)
        if value and not self.LEAST <= len(value) <= self.MOST:
            raise Wrong(self.expected)
        return value


class MountPath(Kind):
    """A path at which the web server answers: `/name` or `/name/name`, without a slash behind."""

    name = 'URL path'
    expected = 'a path such as /api/admin'
    NAMES = re.compile(r'(?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}){1,4}')
    # these, and what is below
    TAKEN: tuple[str, ...] = ('/mxdeliv', '/new', '/-', '/__proxy', '/.well-known')

    def check(self, value: object) -> object:
        if not isinstance(value, str) or not self.NAMES.fullmatch(value):
            raise Wrong(self.expected)
        if any(value == taken or value.startswith(f'{taken}/') for taken in self.TAKEN):
            raise Wrong('a path that has no meaning of its own')
        return value


class PagePath(MountPath):
    """A path that has pages of its own below it, so it must not hide what others have there."""

    TAKEN = (
        *MountPath.TAKEN,
        *('/index.html', '/inv', '/info', '/security', '/share', '/docs', '/robots.txt'),
        *('/style.css', '/logo.svg', '/favicon.ico', '/mail', '/cgi-bin'),
        *('/exchanger', '/webimap', '/websmtp', '/metrics', '/api'),
    )


class Origins(Kind):
    """Origins of web pages (RFC 6454 6.2) as a tuple; `*` is any."""

    name = 'list of origins'
    expected = 'origins such as https://panel.example.org'
    many = True
    ORIGIN = re.compile(
        r'https?://(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?'
    )
    LIMIT = 64

    def parse(self, text: str) -> object:
        return self.check([part.strip() for part in re.split(r'[,\n]', text) if part.strip()])

    def check(self, value: object) -> object:
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, (list, tuple)) or len(words) > self.LIMIT:
            raise Wrong(self.expected)
        if not all(
            isinstance(one, str) and (one == '*' or self.ORIGIN.fullmatch(one)) for one in words
        ):
            raise Wrong(self.expected)
        return tuple(dict.fromkeys(str(one).lower() for one in words))

    def show(self, value: object) -> str:
        assert isinstance(value, tuple)
        return '[' + ', '.join(f"'{one}'" for one in value) + ']'


class Networks(Kind):
    """IP addresses and networks, as a tuple of ipaddress networks."""

    name = 'list of networks'
    expected = "IP addresses or networks such as 192.0.2.7 or '2001:db8::/32'"
    many = True

    def parse(self, text: str) -> object:
        return self.check([part.strip() for part in text.split(',') if part.strip()])

    def check(self, value: object) -> object:
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, (list, tuple)):
            raise Wrong(self.expected)
        try:
            found = [ipaddress.ip_network(one) for one in words if one != '']
        except ValueError:
            raise Wrong(self.expected) from None
        return tuple(dict.fromkeys(found))

    def show(self, value: object) -> str:
        assert isinstance(value, tuple)
        return '[' + ', '.join(f"'{one}'" for one in value) + ']'


class HostAddresses(Kind):
    """IP addresses of this host as others see it: at most one of each family, as a tuple."""

    name = 'list of IP addresses'
    expected = "an IPv4 address, an IPv6 address ('2001:db8::1') or one of each"
    many = True

    def parse(self, text: str) -> object:
        return self.check([part.strip() for part in text.split(',') if part.strip()])

    def check(self, value: object) -> object:
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, (list, tuple)):
            raise Wrong(self.expected)
        try:
            found = tuple(ipaddress.ip_address(one) for one in words if one != '')
        except ValueError:
            raise Wrong(self.expected) from None
        if len({one.version for one in found}) < len(found) or any(
            one.is_unspecified or one.is_multicast for one in found
        ):
            raise Wrong(self.expected)
        return found

    def show(self, value: object) -> str:
        assert isinstance(value, tuple)
        return '[' + ', '.join(f"'{one}'" for one in value) + ']'
