#!/usr/bin/env python3
"""What holds the house together, checked without a compiler: usage: house.py [FOLDER]

The rooms, what each may include and how its globals begin stand in one table, in docs/architecture.md; it is read from there,
and so are the library's layers and the objects that lie in several files.  Findings are told as file:line: text and make the
exit code 1.  The layout of .clang-format is taken for granted: a function's braces stand alone at the beginning of a line."""
import fnmatch
import functools
import os
import re
import sys

PAGE = 'docs/architecture.md'
ROOMS_HEAD, LAYERS_HEAD, OBJECTS_HEAD = '| room | may include |', '| layer | modules | may include |', '| one object | its files |'
FILE_LINES, FUNCTION_LINES, MEDIAN_LINES, HEAD_COMMENT_FROM = 600, 60, 11, 150
PRIVATE = re.compile(r'(^|_)internal\.h$')
PRIVATE_MISSPELT = re.compile(r'(_int|_priv|_private|_impl|[a-z]int)\.h$')
MENTION = re.compile(r'(?<![\w/.-])(?:lib|tunneld|tests|contrib|conf|docs)/[\w/.-]+\.(?:c|h|py|sh|md|mk)\b')
BARE = re.compile(r'(?<![\w/.-])[a-z]\w*\.[ch]\b')  # "conn_open.c has the rest"
LINK = re.compile(r'\]\(([\w./-]+)(?:#[\w-]+)?\)')
INCLUDE = re.compile(r'\s*#\s*include\s*"([^"]*)"')
COMMENT_OR_TEXT = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
TYPEDEF = re.compile(r'^typedef (?:struct|union|enum)\b', re.M)
ATTRIBUTE = re.compile(r'__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)')
FUNCTION_NAME = re.compile(r'(\w+)\s*\(')
VARIABLE_NAME = re.compile(r'(\w+)\s*(?:\[[^\]]*\]\s*)*(?:=|;|$)')
NO_GLOBAL = re.compile(r'(static|typedef|extern|_Static_assert|struct \w+;|(struct|union|enum)( \w+)?( \{|$))')


class Room:
	"""A row of the table.  A room with names of its own beside td_ is a role's."""

	def __init__(self, name, line, may, prefixes):
		self.name, self.line, self.may, self.prefixes = name, line, may, prefixes
		self.role = len(prefixes) > 1

	def folder(self):
		return self.name if self.name in ('lib/', 'main.c') else 'tunneld/' + self.name

	def holds(self, path):
		return path == 'tunneld/main.c' if self.name == 'main.c' else path.startswith(self.folder())


class Layer:
	"""A row of the table of the library's layers."""

	def __init__(self, name, line, modules, may):
		self.name, self.line, self.modules, self.may = name, line, modules, may

	def module_of(self, path):
		"""lib/tls_ctx.c belongs to the module tls."""
		name = os.path.basename(path)[:-2]
		return next((m for m in self.modules if name == m or name.startswith(m + '_')), None)


class Function:
	def __init__(self, name, line, lines, static):
		self.name, self.line, self.lines, self.static = name, line, lines, static


class Source:
	"""A .c or .h file: its includes, functions and global variables, each with its line."""

	def __init__(self, path, text):
		self.path, self.text = path, text
		self.lines = self.text.count('\n')
		self.includes = [(n, m.group(1)) for n, m in enumerate(map(INCLUDE.match, self.text.split('\n')), 1) if m]
		self.functions, self.variables = [], []
		self.scan()

	@functools.cached_property
	def uses(self):
		"""The names in its code, each with the first line that has it."""
		found = {}
		for n, line in enumerate(self.blank.split('\n'), 1):
			for name in re.findall(r'[A-Za-z_]\w*', line):
				found.setdefault(name, n)
		return found

	@functools.cached_property
	def mentions(self):
		return mentions(self.text)

	@functools.cached_property
	def bare_names(self):
		return bare_names(self.comments())

	def comments(self):
		"""Its text with nothing in it but comments, on their lines."""
		out, at = [], 0
		for m in COMMENT_OR_TEXT.finditer(self.text):
			out.append('\n' * self.text.count('\n', at, m.start()))
			at = m.end()
			out.append(m.group(0) if m.group(0)[:2] in ('/*', '//') else '\n' * m.group(0).count('\n'))
		return ''.join(out)

	def scan(self):
		self.blank = COMMENT_OR_TEXT.sub(lambda m: '""' if m.group(0)[0] in '"\'' else '\n' * m.group(0).count('\n'), self.text)
		begin, words, inside = 0, [], None  # inside: what is called at the closing brace in the first column
		for n, line in enumerate(map(str.rstrip, self.blank.split('\n')), 1):
			if inside:
				if line.startswith('}') or inside == self.variable and line.endswith(';'):
					inside(' '.join(words), begin, n)
					inside, words = None, []
			elif line == '{':
				inside = self.function
			elif not line or line[0] in '#}':
				words = []
			elif words or line[0] not in ' \t':
				begin = begin if words else n
				words.append(line.strip())
				if re.search(r'\) \{.*\}$', line):  # a function on one line
					self.function(' '.join(words), begin, n)
					words = []
				elif line.endswith(';'):
					self.variable(' '.join(words), begin, n)
					words = []
				elif line.endswith('{'):
					inside = self.variable

	def function(self, text, begin, end):
		text = ATTRIBUTE.sub('', text).strip()
		found = FUNCTION_NAME.search(text)
		self.functions.append(Function(found.group(1) if found else '?', begin, end - begin + 1, text.startswith('static ')))

	def variable(self, text, begin, end):
		text = ATTRIBUTE.sub('', text).strip()
		if self.path.endswith('.h') or NO_GLOBAL.match(text) or '(' in text.split('=')[0]:
			return
		found = VARIABLE_NAME.search(text)
		if found:
			self.variables.append((found.group(1), begin))


# Who looks at trees that are alike (tests/house/) reads what they have in common once.
source = functools.lru_cache(maxsize=None)(Source)


def numbered(pattern, text):
	"""-> (line, match) for each match in it"""
	n, at = 1, 0
	for m in pattern.finditer(text):
		n += text.count('\n', at, m.start())
		at = m.start()
		yield n, m


def mentions(text):
	"""-> (line, path) for each path of the tree that it speaks of"""
	found = [(n, m.group(), text[text.rfind('\n', 0, m.start()) + 1:m.end()]) for n, m in numbered(MENTION, text)]
	return [(n, name) for n, name, line in found if not INCLUDE.match(line + '"') and not re.search('NAME|ROOM', name)]


def bare_names(text):
	return [(n, m.group()) for n, m in numbered(BARE, text)]


def circles(graph):
	"""The sets of two and more nodes that all lead to each other (Tarjan)."""
	index, low, stack, found = {}, {}, [], []

	def visit(node):
		index[node] = low[node] = len(index)
		stack.append(node)
		for to in graph[node]:
			if to not in index:
				visit(to)
				low[node] = min(low[node], low[to])
			elif to in stack:
				low[node] = min(low[node], index[to])
		if low[node] == index[node]:
			at = stack.index(node)
			found.append(sorted(stack[at:]))
			del stack[at:]
	for node in sorted(graph):
		if node not in index:
			visit(node)
	return [nodes for nodes in found if len(nodes) > 1]


class House:
	def __init__(self, top):
		self.top, self.findings, self.rooms, self.layers, self.objects = top, set(), [], [], []
		self.read_tables()
		self.sources = {}
		for part in ('lib', 'tunneld', 'tests'):
			for folder, _, names in os.walk(os.path.join(top, part)):
				for name in names:
					if name.endswith(('.c', '.h')):
						path = os.path.relpath(os.path.join(folder, name), top)
						with open(os.path.join(top, path), encoding='utf-8') as f:
							self.sources[path] = source(path, f.read())

	def find(self, path, line, text):
		self.findings.add((path, line, text))

	def rows(self, head):
		"""-> (line, the words in `code` of each cell) for each row of that table of the page"""
		with open(os.path.join(self.top, PAGE), encoding='utf-8') as f:
			lines = f.read().split('\n')
		at = next((i for i, line in enumerate(lines) if line.startswith(head)), None)
		if at is None:
			self.find(PAGE, 1, 'the table "%s" is missing' % head)
			return
		for n, line in enumerate(lines[at + 2:], at + 3):
			if not line.startswith('|'):
				return
			cells = [' '.join(re.findall(r'`([^`]*)`', c)).split() for c in line.strip('|').split('|')]
			yield n, cells

	def read_tables(self):
		for n, cells in self.rows(ROOMS_HEAD):
			if len(cells) < 4 or len(cells[0]) != 1 or not cells[2]:
				self.find(PAGE, n, 'a row of the table of rooms needs a room, what it may include, its names, its sentence')
			else:
				self.rooms.append(Room(cells[0][0], n, cells[1], cells[2]))
		for n, cells in self.rows(LAYERS_HEAD):
			if len(cells) != 3 or len(cells[0]) != 1 or not cells[1]:
				self.find(PAGE, n, 'a row of the table of layers needs a layer, its modules, what they may include')
			else:
				self.layers.append(Layer(cells[0][0], n, cells[1], cells[2]))

		for n, cells in self.rows(OBJECTS_HEAD):
			self.objects.append((n, cells[-1]))

	def room_of(self, path):
		return next((r for r in self.rooms if r.holds(path)), None)

	# The table.

	def check_table(self):
		below = {}
		for r in reversed(self.rooms):
			for entry in r.may:
				other = below.get(entry.split('/')[0] + '/')
				if not other:
					self.find(PAGE, r.line, '%s may include only rooms that stand below it in the table, %s does not' % (r.name, entry))
				elif other.role and r.role:
					self.find(PAGE, r.line, '%s is a role, and may not include %s, which is another' % (r.name, entry))
				elif not entry.endswith('/') and not os.path.exists(os.path.join(self.top, other.folder(), entry.split('/', 1)[1])):
					self.find(PAGE, r.line, '%s may include %s, which is not there' % (r.name, entry))
			below[r.name] = r
			if not any(r.holds(p) for p in self.sources):
				self.find(PAGE, r.line, 'the room %s has no files' % r.name)
		for path in self.sources:
			if not path.startswith('tests/') and not self.room_of(path):
				self.find(path, 1, 'its folder is not in the table of rooms in ' + PAGE)
			of = re.match(r'tests/daemon/(\w+)/', path)
			if of and of.group(1) + '/' not in [r.name for r in self.rooms]:
				self.find(path, 1, 'tests/daemon/ has the folders of tunneld/, and %s/ is none' % of.group(1))

	def layer_of(self, path):
		return next((layer for layer in self.layers if layer.module_of(path)), None)

	def check_layers(self):
		below = []
		for layer in self.layers:
			for entry in layer.may:
				if entry not in below:
					self.find(PAGE, layer.line, '%s may include only layers that stand above it in the table, %s does not' % (layer.name, entry))
			for module in layer.modules:
				if not any(p.startswith('lib/') and layer.module_of(p) == module for p in self.sources):
					self.find(PAGE, layer.line, 'the module %s has no files' % module)
			below.append(layer.name)
		for s in self.sources.values():
			mine = self.layer_of(s.path) if s.path.startswith('lib/') else None
			if s.path.startswith('lib/') and not mine:
				self.find(s.path, 1, 'it is in no layer of the library in ' + PAGE)
			for line, path in s.includes if mine else []:
				other = self.layer_of(path)
				if path.startswith('lib/') and other and other is not mine and other.name not in mine.may:
					self.find(s.path, line, '%s includes "%s": the table of layers in %s does not allow it' % (mine.name, path, PAGE))

	# Includes.

	def check_includes(self):
		for s in self.sources.values():
			for line, path in s.includes:
				if path not in self.sources:
					self.find(s.path, line, '"%s" is not a path from the top to a file of the tree' % path)
				elif path.endswith('.c'):
					self.find(s.path, line, '"%s" is not a header' % path)
				elif not s.path.startswith('tests/'):
					self.check_include(s, line, path)
		self.check_circles()

	def check_include(self, s, line, path):
		mine, other = self.room_of(s.path), self.room_of(path)
		folder, name = os.path.split(path)
		if PRIVATE.search(name) and os.path.dirname(s.path) != folder:
			self.find(s.path, line, '"%s" is private to %s/' % (path, folder))
		if path.startswith('tests/'):
			self.find(s.path, line, '"%s" belongs to the tests' % path)
		elif mine and other and mine is not other and not {other.name, other.name + name} & set(mine.may):
			what = 'the library may not include the program' if mine.name == 'lib/' else \
				'a role may not include another role' if mine.role and other.role else 'the table in %s does not allow it' % PAGE
			self.find(s.path, line, '%s includes "%s": %s' % (mine.name, path, what))

	def check_circles(self):
		state = {}

		def visit(path, way):
			state[path] = 'open'
			for line, to in self.sources[path].includes:
				if state.get(to) == 'open':
					circle = way[way.index(to):] + [to]
					self.find(path, line, 'a circle of includes: ' + ' -> '.join(circle))
				elif to in self.sources and to not in state:
					visit(to, way + [to])
			state[path] = 'done'
		for path in sorted(self.sources):
			if path not in state:
				visit(path, [path])

	# Calls: which files use each other's globals.

	def check_calls(self):
		product = {s.path: s for s in self.sources.values() if s.path.endswith('.c') and not s.path.startswith('tests/')}
		home = {name: s.path for s in product.values() for name in
			[f.name for f in s.functions if not f.static] + [name for name, _ in s.variables]}
		calls = {path: {} for path in product}
		for path, s in product.items():
			for name, line in s.uses.items():
				if home.get(name, path) != path:
					calls[path].setdefault(home[name], line)
		for circle in circles(calls):
			if not any(all(any(fnmatch.fnmatch(path, glob) for glob in files) for path in circle) for _, files in self.objects):
				line = min(line for to, line in calls[circle[0]].items() if to in circle)
				self.find(circle[0], line, 'files that call each other in a circle, and are no object of the table in %s: %s' % (PAGE, ' '.join(circle)))
		for line, files in self.objects:
			for glob in files:
				if not fnmatch.filter(product, glob):
					self.find(PAGE, line, 'there is no file %s' % glob)

	# Names.

	def check_names(self):
		for s in self.sources.values():
			for f in s.functions:
				if f.name.endswith('_'):
					self.find(s.path, f.line, '%s: a name that ends in an underscore says nothing' % f.name)
			for m in TYPEDEF.finditer(s.blank):
				self.find(s.path, s.blank.count('\n', 0, m.start()) + 1, "no structure has a typedef: say its keyword")
			room = self.room_of(s.path)
			if room and s.path.endswith('.c'):
				for name, line in [(f.name, f.line) for f in s.functions if not f.static] + s.variables:
					if name != 'main' and not name.startswith(tuple(room.prefixes)):
						self.find(s.path, line, '%s is global and begins with none of: %s' % (name, ' '.join(room.prefixes)))
			if not s.path.startswith('tests/') and PRIVATE_MISSPELT.search(s.path):
				self.find(s.path, 1, 'a private header is called internal.h or NAME_internal.h')

	# What pages and comments speak of.

	def check_mentions(self):
		pages = [p for p in ['README.md'] + ['docs/' + n for n in os.listdir(os.path.join(self.top, 'docs'))] if p.endswith('.md')]
		bare = {os.path.basename(p) for p in self.sources}
		named = [(p, s.mentions, s.bare_names) for p, s in self.sources.items()]
		for page in pages:
			if os.path.exists(os.path.join(self.top, page)):
				with open(os.path.join(self.top, page), encoding='utf-8') as f:
					text = f.read()
				links = [(n, os.path.normpath(os.path.join(os.path.dirname(page), m.group(1)))) for n, m in numbered(LINK, text)]
				named.append((page, mentions(text) + links, bare_names(text)))
		there = functools.lru_cache(maxsize=None)(lambda name: os.path.exists(os.path.join(self.top, name)))
		for path, paths, names in named:
			for n, name in paths:
				if not there(name):
					self.find(path, n, 'there is no %s' % name)
			# A name without its folder may be that of any file.
			for n, name in names:
				if name not in bare:
					self.find(path, n, 'there is no %s' % name)

	# Sizes.

	def check_sizes(self):
		sizes = []
		for s in self.sources.values():
			product = not s.path.startswith('tests/')
			if s.lines > FILE_LINES:
				self.find(s.path, s.lines, 'a file of %d lines, %d are allowed' % (s.lines, FILE_LINES))
			if product and s.path.endswith('.c') and s.lines >= HEAD_COMMENT_FROM and not s.text.startswith(('/*', '//')):
				self.find(s.path, 1, 'a file of %d lines must open with a comment that says what it is for' % s.lines)
			for f in s.functions:
				if product:
					sizes.append(f.lines)
				if f.lines > FUNCTION_LINES:
					self.find(s.path, f.line, '%s has %d lines, %d are allowed' % (f.name, f.lines, FUNCTION_LINES))
		median = sorted(sizes)[len(sizes) // 2] if sizes else 0
		if median > MEDIAN_LINES:
			self.find('tunneld/main.c', 1, 'half of all functions have %d lines and more, %d are allowed' % (median, MEDIAN_LINES))
		return 'house: %d files, %d functions, the longest of %d lines, the median %d' % (
			len(self.sources), len(sizes), max(sizes, default=0), median)


def main(argv):
	house = House(argv[1] if len(argv) > 1 else os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
	house.check_table()
	house.check_layers()
	house.check_includes()
	house.check_calls()
	house.check_names()
	house.check_mentions()
	print(house.check_sizes())
	for path, line, text in sorted(house.findings):
		print('%s:%d: %s' % (path, line, text))
	return 1 if house.findings else 0


if __name__ == '__main__':
	sys.exit(main(sys.argv))
