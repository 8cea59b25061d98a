"""contrib/lint.sh: what it runs on which files, and what it fails on.  The programs it calls are ours, but for one test."""
import os
import shutil
import subprocess
import tempfile

from harness import Skip
from run import test

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = '''| room | may include | its names | what it is for |
| --- | --- | --- | --- |
| `main.c` | `base/ lib/` | `td_` | starts |
| `base/` | `lib/` | `td_` | helps |
| `lib/` | nothing | `tnl_` | knows |

| layer | modules | may include |
| --- | --- | --- |
| `base` | `a` | nothing |

| one object | its files |
| --- | --- |
'''


class Tree:
	"""A small tree with the two scripts, and a PATH in which three programs write down what they are asked."""

	def __init__(self, version=14, fail=''):
		self.dir = tempfile.mkdtemp(prefix='tunneld-lint-')
		self.write('docs/architecture.md', PAGE)
		self.write('lib/a.c', 'int tnl_a(void)\n{\n\treturn 1;\n}\n')
		self.write('tunneld/base/b.h', '/* Nothing. */\n')
		self.write('tunneld/main.c', '#include "tunneld/base/b.h"\n')
		self.write('tests/unit/test_a.c', '\n')
		self.write('tests/all.sh', 'true\n')
		for name in ('lint.sh', 'house.py'):
			os.makedirs(self.dir + '/contrib', exist_ok=True)
			shutil.copy(os.path.join(TOP, 'contrib', name), self.dir + '/contrib')
		say = 'echo "%s: $*" >>%s/calls; ' % ('%s', self.dir)
		self.program('clang-format', '[ "$1" != --version ] || { echo "Debian clang-format version %s.0.6"; exit 0; }; ' % version + say % 'format')
		self.program('clang-tidy', say % 'tidy' + 'case "$*" in *"%s"*) echo "$PWD/lib/a.c:3:1: error: a bug"; exit 1;; esac' % (fail or 'nothing'))
		self.program('cppcheck', say % 'cppcheck')

	def write(self, path, text, mode=0o644):
		path = os.path.join(self.dir, path)
		os.makedirs(os.path.dirname(path), exist_ok=True)
		with open(path, 'w') as f:
			f.write(text)
		os.chmod(path, mode)

	def program(self, name, text):
		self.write('bin/' + name, '#!/bin/sh\n%s\n' % text, 0o755)

	def lint(self, *files):
		"""-> (code, what it says, the programs' calls)"""
		calls = os.path.join(self.dir, 'calls')
		open(calls, 'w').close()
		r = subprocess.run(['sh', 'contrib/lint.sh', *files], cwd=self.dir, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
			env=dict(os.environ, PATH=self.dir + '/bin:' + os.environ['PATH']))
		with open(calls) as f:
			return r.returncode, r.stdout, f.read()

	def __enter__(self):
		return self

	def __exit__(self, *_):
		shutil.rmtree(self.dir)


@test('lint: everything is looked at, and a tree without findings passes')
def whole():
	with Tree() as t:
		code, said, calls = t.lint()
		assert code == 0 and said.endswith('lint: no findings\n'), said
		assert 'format: --dry-run lib/a.c tests/unit/test_a.c tunneld/base/b.h tunneld/main.c\n' in calls, calls
		assert 'tidy: --quiet --warnings-as-errors=* lib/a.c' in calls and '=* tunneld/main.c' in calls and calls.count('tidy') == 2, calls
		assert ' lib/a.c tunneld/base/b.h tunneld/main.c\n' in calls[calls.index('cppcheck:'):], calls


@test('lint: findings of the house, of clang-tidy and of sh fail, each told as file:line')
def findings():
	with Tree() as t:
		t.write('lib/a.c', '#include "tunneld/base/b.h"\n')
		code, said, _ = t.lint()
		assert code == 1 and 'lib/a.c:1: lib/ includes "tunneld/base/b.h"' in said, said
		code, said, _ = t.lint('lib/a.c')
		assert code == 1 and 'lib/a.c:1: lib/ includes' in said, said
		code, said, _ = t.lint('tunneld/main.c')
		assert code == 0 and said == 'lint: no findings\n', said
	with Tree(fail='lib/a.c') as t:
		code, said, _ = t.lint()
		assert code == 1 and '\nlib/a.c:3:1: error: a bug\n' in said, said
	with Tree() as t:
		t.write('tests/all.sh', 'if true; then\n')
		assert t.lint()[0] == 1
		assert t.lint('tests/all.sh')[0] == 1


@test('lint: one file is looked at alone')
def one():
	with Tree() as t:
		for path, programs in (('lib/a.c', {'format', 'tidy', 'cppcheck'}), ('tunneld/base/b.h', {'format', 'cppcheck'}),
				('tests/unit/test_a.c', {'format'}), ('tests/all.sh', set())):
			code, said, calls = t.lint(path)
			assert code == 0 and said == 'lint: no findings\n', (path, said)
			assert {line.split(':')[0] for line in calls.splitlines()} == programs, (path, calls)
			assert all(path in line for line in calls.splitlines()), calls
		code, said, _ = t.lint('lib/absent.c')
		assert code == 2 and 'lib/absent.c: no such file' in said, said


@test('lint: another version of clang-format is told, not believed')
def version():
	with Tree(version=16) as t:
		code, said, calls = t.lint('lib/a.c')
		assert code == 1 and 'clang-format 14 lays this tree out' in said and 'here it is version 16' in said, said
		assert 'format:' not in calls, calls


@test('lint: a file that is not laid out by clang-format fails')
def layout():
	program = shutil.which('clang-format')
	if not program or b'version 14.' not in subprocess.run([program, '--version'], stdout=subprocess.PIPE).stdout:
		raise Skip('clang-format 14 is missing')
	with Tree() as t:
		os.unlink(t.dir + '/bin/clang-format')
		shutil.copy(os.path.join(TOP, '.clang-format'), t.dir)
		assert t.lint()[0] == 0
		t.write('lib/a.c', 'int tnl_a(void)\n{\n  return 1;\n}\n')
		code, said, _ = t.lint()
		assert code == 1 and 'lib/a.c:2: not laid out by clang-format (clang-format -i does it)\n' in said, said
