"""contrib/house.py finds a breach of each of its rules: each is made on a copy of the tree."""
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile

from run import test

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPT = os.path.join(TOP, 'contrib', 'house.py')
sys.path.insert(0, os.path.dirname(SCRIPT))

import house  # noqa: E402

PAGE = 'docs/architecture.md'


BASE = []  # the copy of which all others are made


def prepare(directory):
	"""What all tests have in common is copied and read once, before they have processes of their own."""
	BASE.append(directory)
	for part in ('lib', 'tunneld', 'tests'):
		shutil.copytree(os.path.join(TOP, part), os.path.join(directory, part),
			ignore=lambda d, names: [n for n in names if not n.endswith(('.c', '.h', '.py')) and not os.path.isdir(os.path.join(d, n))])
	for part in ('docs', 'contrib', 'conf'):
		shutil.copytree(os.path.join(TOP, part), os.path.join(directory, part))
	with Copy():
		pass


class Copy:
	"""The sources, pages and scripts.  What the check finds in them as they are is not counted."""

	def __enter__(self):
		self.dir = tempfile.mkdtemp(prefix='tunneld-house-')
		# Links: write() makes a file of its own in place of one.
		shutil.copytree(BASE[0], self.dir, copy_function=os.link, dirs_exist_ok=True)
		self.before = set(self.check()[1])
		return self

	def __exit__(self, *_):
		shutil.rmtree(self.dir)

	def read(self, path, top=None):
		with open(os.path.join(top or self.dir, path)) as f:
			return f.read()

	def write(self, path, text):
		path = os.path.join(self.dir, path)
		os.makedirs(os.path.dirname(path), exist_ok=True)
		if os.path.exists(path):
			os.unlink(path)
		with open(path, 'w') as f:
			f.write(text)

	def page(self, pattern, to):
		text, n = re.subn(pattern, to, self.read(PAGE), count=1, flags=re.M)
		assert n == 1, pattern
		self.write(PAGE, text)
		return text[:text.index(re.split(r'[\n\\]', to)[0])].count('\n') + 1

	def check(self):
		with contextlib.redirect_stdout(io.StringIO()) as out:
			code = house.main([SCRIPT, self.dir])
		return code, out.getvalue().splitlines()[1:]

	def found(self, *expected):
		"""The findings that were not there before are these, each a file:line: and a part of the text."""
		code, lines = self.check()
		new = [line for line in lines if line not in self.before]
		assert code == 1, code
		assert len(new) == len(expected), '\n'.join(new)
		def place(item):
			path, line = item[0].split(':')
			return path, int(line)
		for (where, text), line in zip(sorted(expected, key=place), new):
			assert line.startswith(where + ': ') and text in line, '%s is not %s: …%s…' % (line, where, text)


def header(folder):
	"""A public header of that room."""
	return next('tunneld/%s/%s' % (folder, n) for n in sorted(os.listdir(os.path.join(TOP, 'tunneld', folder)))
		if n.endswith('.h') and 'internal' not in n)


def include(*paths):
	return ''.join('#include "%s"\n' % p for p in paths)


@test('house: a room that includes what the table does not allow')
def upward():
	with Copy() as c:
		c.write('tunneld/base/zz.c', '/* Why. */\n' + include('lib/alloc.h', header('net')))
		c.write('tunneld/base/zz.h', include(header('process')))
		c.found(('tunneld/base/zz.c:3', 'the table in %s does not allow it' % PAGE), ('tunneld/base/zz.h:1', 'does not allow it'))


@test('house: where the table names one header of a room the others are not allowed')
def one_header():
	with Copy() as c:
		c.write('tunneld/agent/zz.h', '\n')
		c.write('tunneld/command/zz.c', include('tunneld/agent/agent.h', 'tunneld/agent/zz.h'))
		c.found(('tunneld/command/zz.c:2', 'the table in %s does not allow it' % PAGE))


@test('house: a role that includes another role, by its own include or by the table')
def roles():
	with Copy() as c:
		c.write('tunneld/agent/zz.c', include('tunneld/gateway/gateway.h'))
		c.found(('tunneld/agent/zz.c:1', 'a role may not include another role'))
		line = c.page(r'^\| `agent/` \| `', '| `agent/` | `gateway/ ')
		c.found(('%s:%d' % (PAGE, line), 'agent/ is a role, and may not include gateway/'))


@test('house: a private header outside its folder; one that is called otherwise')
def private():
	with Copy() as c:
		c.write('tunneld/net/zz_internal.h', '\n')
		c.write('tunneld/net/zz.c', include('tunneld/net/zz_internal.h'))
		c.write('tunneld/pump/zz.c', include('tunneld/net/zz_internal.h', 'tunneld/net/internal.h'))
		c.write('tunneld/net/internal.h', '\n')
		c.write('tests/daemon/net/test_zz.c', include('tunneld/net/zz_internal.h'))
		c.write('lib/enc_zz_int.h', '\n')
		c.found(('lib/enc_zz_int.h:1', 'a private header is called'), ('tunneld/pump/zz.c:1', 'is private to tunneld/net/'),
			('tunneld/pump/zz.c:2', 'is private to tunneld/net/'))


@test('house: the library includes the program; the product includes the tests')
def library():
	with Copy() as c:
		c.write('lib/enc_zz.c', include(header('base')))
		c.write('tunneld/base/zz.c', include('tests/unit/check.h'))
		c.found(('lib/enc_zz.c:1', 'the library may not include the program'), ('tunneld/base/zz.c:1', 'belongs to the tests'))


@test('house: an include that is no path from the top, and one of a .c file')
def paths():
	with Copy() as c:
		c.write('lib/enc_zz.c', include('alloc.h', 'lib/enc_yy.c'))
		c.write('lib/enc_yy.c', '')
		c.write('tests/unit/test_zz.c', include('../../lib/alloc.h'))
		c.found(('lib/enc_zz.c:1', 'is not a path from the top'), ('lib/enc_zz.c:2', 'is not a header'),
			('tests/unit/test_zz.c:1', 'is not a path from the top'))


@test('house: headers that include one another in a circle')
def circle():
	with Copy() as c:
		c.write('lib/enc_zx.h', include('lib/enc_zy.h'))
		c.write('lib/enc_zy.h', '\n' + include('lib/enc_zz.h'))
		c.write('lib/enc_zz.h', include('lib/enc_zx.h'))
		c.found(('lib/enc_zz.h:1', 'a circle of includes: lib/enc_zx.h -> lib/enc_zy.h -> lib/enc_zz.h -> lib/enc_zx.h'))


@test('house: layers of the library: upwards, not in the table, in the table only')
def layers():
	with Copy() as c:
		c.write('lib/buf_zz.h', include('lib/json.h'))
		c.write('lib/tls_zz.c', include('lib/seal.h'))
		c.write('lib/attic.c', '\n')
		line = c.page(r'^\| `link` \| `', '| `link` | `cellar ')
		c.found(('%s:%d' % (PAGE, line), 'the module cellar has no files'), ('lib/attic.c:1', 'in no layer of the library'),
			('lib/buf_zz.h:1', 'base includes "lib/json.h": the table of layers'), ('lib/tls_zz.c:1', 'link includes "lib/seal.h": the table of layers'))
	with Copy() as c:
		line = c.page(r'^\| `base` \|(.*)\| libc \|', r'| `base` |\1| `codecs` |')
		c.found(('%s:%d' % (PAGE, line), 'base may include only layers that stand above it'))


@test('house: a circle between rooms, allowed by the table')
def room_circle():
	with Copy() as c:
		line = c.page(r'^\| `base/` \| `', '| `base/` | `pump/ ')
		c.found(('%s:%d' % (PAGE, line), 'base/ may include only rooms that stand below it in the table, pump/ does not'))


@test('house: files that call each other in a circle and are not one object')
def calls():
	with Copy() as c:
		for a, b in (('x', 'y'), ('y', 'z'), ('z', 'x')):
			c.write('tunneld/base/z%s.c' % a, '/* td_z%s() in a comment */\n\nvoid td_z%s(void)\n{\n\ttd_z%s();\n}\n' % (a, a, b))
		c.write('tunneld/base/zw.c', 'void td_zw(void)\n{\n\ttd_zx();\n}\n')
		finding = ('tunneld/base/zx.c:5', 'are no object of the table in %s: tunneld/base/zx.c tunneld/base/zy.c tunneld/base/zz.c' % PAGE)
		c.found(finding)
		line = c.page(r'^\| a session \|', '| three | `tunneld/base/z[xy].c tunneld/attic/*.c` |\n| a session |')
		c.found(finding, ('%s:%d' % (PAGE, line), 'there is no file tunneld/attic/*.c'))
		c.page(r'^\| three \|.*', '| three | `tunneld/base/z*.c` |')
		assert set(c.check()[1]) == c.before


@test('house: globals without the prefix of their room, and what is no global')
def globals_():
	with Copy() as c:
		c.write('lib/enc_zz.c', 'int tnl_fine(void)\n{\n\treturn 0;\n}\n\nint naked(void)\n{\n\treturn 0;\n}\n\nint bare;\n'
			'const struct tnl_x list[] = {\n    {1, "a(b"},\n};\n')
		c.write('tunneld/net/zz.c', '/* int comment(void)\n{ */\nstatic const char *const names[] = {"a", "b"};\nextern char **environ;\n'
			'struct zz {\n\tint of;\n};\nint prototype(int x);\n\nvoid gw_stranger(void) {}\n\n'
			'__attribute__((format(printf, 1, 0))) static void inner(const char *fmt,\n\tint x)\n{\n}\n')
		c.write('tunneld/gateway/zz.c', 'void gw_own(void)\n{\n}\nvoid td_own(void)\n{\n}\nstruct td_x *\nag_other(void)\n{\n}\n')
		c.found(('lib/enc_zz.c:6', 'naked is global'), ('lib/enc_zz.c:11', 'bare is global'), ('lib/enc_zz.c:12', 'list is global'),
			('tunneld/gateway/zz.c:7', 'ag_other is global and begins with none of: td_ gw_'),
			('tunneld/net/zz.c:10', 'gw_stranger is global and begins with none of: td_'))


@test('house: a function name that ends in an underscore')
def underscore():
	with Copy() as c:
		c.write('lib/enc_zz.c', 'static int twin_(void)\n{\n\treturn 0;\n}\n')
		c.found(('lib/enc_zz.c:1', 'twin_: a name that ends in an underscore'))


@test('house: a structure with a typedef')
def typedefs():
	with Copy() as c:
		c.write('lib/enc_zz.h', '/* typedef struct */\ntypedef void tnl_fine(struct tnl_x *x);\ntypedef struct tnl_x tnl_x_t;\n')
		c.found(('lib/enc_zz.h:3', 'no structure has a typedef'))


@test('house: a long file without a comment at its head, files and functions that are too long')
def sizes():
	with Copy() as c:
		c.write('lib/enc_zx.c', '#include <time.h>\n' + '\n' * 149)
		c.write('lib/enc_zw.c', '/* What it is for. */\n' + '\n' * 149)
		c.write('lib/enc_zy.h', '\n' * 601)
		c.write('lib/enc_zz.c', 'static void fits(void)\n{\n%s}\n\nstatic void too_long(int a,\n\tint b)\n{\n%s}\n' % ('\n' * 57, '\n' * 57))
		c.found(('lib/enc_zx.c:1', 'a file of 150 lines must open with a comment'), ('lib/enc_zy.h:601', 'a file of 601 lines, 600 are allowed'),
			('lib/enc_zz.c:62', 'too_long has 61 lines, 60 are allowed'))


@test('house: files and functions of the tests that are too long')
def sizes_of_tests():
	with Copy() as c:
		c.write('tests/unit/test_zx.c', '#include <time.h>\n' + '\n' * 599)  # a comment at its head is asked of the product alone
		c.write('tests/unit/test_zy.c', '\n' * 601)
		c.write('tests/daemon/net/zy_test.h', '\n' * 601)
		c.write('tests/daemon/net/test_zz.c', 'static void fits(void)\n{\n%s}\n\nstatic void too_long(void)\n{\n%s}\n' % ('\n' * 57, '\n' * 58))
		c.found(('tests/daemon/net/test_zz.c:62', 'too_long has 61 lines, 60 are allowed'),
			('tests/daemon/net/zy_test.h:601', 'a file of 601 lines, 600 are allowed'),
			('tests/unit/test_zy.c:601', 'a file of 601 lines, 600 are allowed'))


@test('house: half of all functions are too long')
def median():
	with Copy() as c:
		for n in range(200):
			c.write('lib/enc_zz%d.c' % n, 'static void f(void)\n{\n%s}\n\n' % ('\n' * 20) * 30)
		c.found(*[('lib/enc_zz%d.c:%d' % (n, 660 + 60), 'a file of') for n in range(200)],
			*[('lib/enc_zz%d.c:1' % n, 'must open with a comment') for n in range(200)],
			('tunneld/main.c:1', 'half of all functions have 23 lines and more, 11 are allowed'))
		# A program of its own, that has seen nothing before, says the same.
		r = subprocess.run([sys.executable, SCRIPT, c.dir], text=True, stdout=subprocess.PIPE)
		assert (r.returncode, r.stdout.splitlines()[1:]) == c.check()


@test('house: a page or a comment that names a file that is not there')
def mentions():
	with Copy() as c:
		c.write('docs/zz.md', 'See `lib/enc.h`, [it](architecture.md#rooms),\n`tests/daemon/ROOM/test_NAME.c`, `lib/attic.c` and [that](attic.md).\n')
		c.write('lib/enc_zz.c', '/* lib/attic.h has it, and lib/enc.h. */\n')
		c.write('lib/enc_zy.c', '/* Not in enc.c,\n * in attic.c. */\nint tnl_x(struct tnl_x *a)\n{\n\treturn a->attic.c; // attic.h\n}\n')
		c.found(('lib/enc_zy.c:2', 'there is no attic.c'), ('lib/enc_zy.c:5', 'there is no attic.h'), ('docs/zz.md:2', 'there is no docs/attic.md'), ('docs/zz.md:2', 'there is no lib/attic.c'), ('lib/enc_zz.c:1', 'there is no lib/attic.h'))


@test('house: the table and the folders differ')
def folders():
	with Copy() as c:
		c.write('tunneld/attic/zz.c', '\n')
		c.write('tunneld/zz.c', '\n')
		c.write('tests/daemon/cellar/test_zz.c', '\n')
		line = c.page(r'^\| `lib/` ', '| `shed/` | nothing | `td_` | nothing |\n| `lib/` ')
		c.found(('tunneld/attic/zz.c:1', 'not in the table of rooms'), ('tunneld/zz.c:1', 'not in the table of rooms'),
			('tests/daemon/cellar/test_zz.c:1', 'cellar/ is none'), ('%s:%d' % (PAGE, line), 'the room shed/ has no files'))


@test('house: the table names a header that is not there, has a broken row, or is missing')
def table():
	with Copy() as c:
		line = c.page(r'^\| `process/` \| `', '| `process/` | `base/attic.h ')
		c.found(('%s:%d' % (PAGE, line), 'process/ may include base/attic.h, which is not there'))
	with Copy() as c:
		line = c.page(r'^\| `lib/` .*', '| `lib/` | nothing | |')
		assert any(x.startswith('%s:%d: ' % (PAGE, line)) for x in c.check()[1])
	with Copy() as c:
		c.write(PAGE, '# Nothing\n')
		assert '%s:1: the table "| room | may include |" is missing' % PAGE in c.check()[1]
