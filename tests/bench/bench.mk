# Benchmarks of single layers; `make bench-channel` prints MB/s and ns per message.
$(BUILD)/tests/bench/%: $(BUILD)/obj/tests/bench/%.o $(LIB)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $< $(LIB) $(LIB_LIBS) -lm

# A fleet of agents is made of the program's parts.
$(BUILD)/tests/bench/bench_fleet: $(BUILD)/obj/tests/bench/bench_fleet.o $(TD_PARTS) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $< $(TD_PARTS) $(LIB) $(LIBS)

# It counts what is copied.
wrapped := $(foreach f,memcpy memmove __memcpy_chk __memmove_chk,-Wl$(comma)--wrap=$(f))
$(BUILD)/tests/bench/bench_message: ALL_LDFLAGS += $(wrapped)

bench-channel: $(BUILD)/tests/bench/bench_channel
	@$(BUILD)/tests/bench/bench_channel $(ARGS)

# Many agents and sessions at one gateway.
bench-fleet: $(BUILD)/tunneld $(BUILD)/tests/bench/bench_fleet
	@TUNNELD=$(BUILD)/tunneld python3 tests/bench/fleet.py $(ARGS)

# What a message costs in instructions, against tests/bench/instructions.txt; ARGS=--record writes that.
check-instructions: $(BUILD)/tests/bench/bench_message
	@CC="$(CC)" OPT="$(strip $(OPT) $(CFLAGS))" python3 tests/bench/instructions.py $(BUILD)/tests/bench/bench_message \
	  $(if $(BORINGSSL_PREFIX),--no-copies) $(ARGS)

-include $(wildcard $(BUILD)/obj/tests/bench/*.d)
.PHONY: bench-channel bench-fleet check-instructions
