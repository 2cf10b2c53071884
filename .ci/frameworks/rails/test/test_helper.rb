ENV["RAILS_ENV"] = "test"
require_relative "../config/environment"
require "rails/test_help"
require "database_cleaner"

# counts returns the numbers of rows of rowcast.migrations and rowcast.history, or nil if there is no schema rowcast.
def counts
  connection = ActiveRecord::Base.connection
  return unless connection.schema_exists?("rowcast")
  %w[migrations history].map { |table| connection.select_value("SELECT count(*) FROM rowcast.#{table}") }
end

BEFORE = counts

ActiveSupport::TestCase.parallelize(workers: 2)

# README
